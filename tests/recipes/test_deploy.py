"""`sergeant-linux deploy` prints what an engine of containers understands, and what it would then start is what was asked for.

No engine is needed here: the command line that it would start is taken out of the file, the way the engine does it, and
read by the parser of `run`.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from sergeant_linux.cli.verbs.run import parse_run
from sergeant_linux.core.policy import Policy
from sergeant_linux.host import resources
from tests.cli.asking import MAIN, REPOSITORY, surroundings

TARGETS: Final = ['dockerfile', 'compose', 'kubernetes']
REQUIRED: Final = ['--worker-module=crawl_worker', '--worker-class=Worker', '--concurrent-workers=4']
MIB: Final = 1024**2

Engine = dict[str, Any]


def say(target: str, *options: str, **environ: str) -> 'subprocess.CompletedProcess[str]':
    command = [sys.executable, '-c', MAIN, 'deploy', target, *options]
    env = surroundings({'PYTHONIOENCODING': 'ascii', **environ})
    return subprocess.run(command, cwd=REPOSITORY, env=env, capture_output=True, encoding='utf-8', timeout=60)


def printed(target: str, *options: str, **environ: str) -> str:
    done = say(target, *REQUIRED, *options, **environ)
    assert (done.returncode, done.stderr) == (0, '')
    return done.stdout


def refusal(target: str, *options: str) -> str:
    done = say(target, *options)
    assert (done.returncode, done.stdout, done.stderr.count('\n')) == (2, '', 1)
    return done.stderr


def dockerfile(*options: str) -> list[tuple[str, str]]:
    """The instructions, each with its arguments, as a builder reads them: no comments, lines continued."""
    lines = [line for line in printed('dockerfile', *options).splitlines() if not line.startswith('#')]
    text = '\n'.join(lines).replace('\\\n', ' ')
    return [(word, rest.strip()) for word, _, rest in (line.partition(' ') for line in text.splitlines() if line)]


def service(*options: str) -> Engine:
    found: Engine = yaml.safe_load(printed('compose', *options))['services']['pool']
    return found


def manifests(*options: str) -> tuple[Engine, Engine]:
    deployment, scaled = yaml.safe_load_all(printed('kubernetes', *options))
    return deployment, scaled


def pod(*options: str) -> Engine:
    found: Engine = manifests(*options)[0]['spec']['template']['spec']
    return found


def unexpanded(word: str) -> str:
    """What compose and Kubernetes make of a word in which nothing is to be expanded: $$ is $, and no $ stands alone."""
    assert '$' not in word.replace('$$', '')
    return word.replace('$$', '$')


def command(target: str, *options: str) -> list[str]:
    """The options that `sergeant-linux run` would get."""
    match target:
        case 'dockerfile':
            words: list[str] = json.loads(dict(dockerfile(*options))['CMD'])
            return words
        case 'compose':
            return [unexpanded(word) for word in service(*options)['command']]
        case _:
            return [unexpanded(word) for word in pod(*options)['containers'][0]['args']]


def started(target: str, *options: str) -> Policy:
    return parse_run(command(target, *options), {}, 'sergeant-linux run')


def asked(*options: str) -> Policy:
    return parse_run([*REQUIRED, *options], {}, 'sergeant-linux run')


# The command line


ODD: Final = [
    '--preload-module=a$(b)', '--preload-module=${c}', '--preload-module=d$$e', '--preload-module=@{f}',
    '--name=ü😀 "x" \\ #{y}: - \'z\' %', '--cgroup-root=/sys/fs/cgroup/yes: [no]',
]


@pytest.mark.parametrize('target', TARGETS)
@pytest.mark.parametrize('options', [
    [],
    ['--preload', '--no-no-new-privileges', '--timeout-stop=1min 30s', '--max-worker-memory-usage=512M'],
    ['--concurrent-workers=auto', '--max-worker-memory-usage=auto'],
    ODD,
])
def test_what_would_be_started_is_what_was_asked_for(target: str, options: list[str]) -> None:
    assert started(target, *options) == asked(*options)


@pytest.mark.parametrize('target', TARGETS)
def test_options_stay_as_they_were_written_and_only_those_that_were_given_are_there(target: str) -> None:
    assert command(target, '--timeout-stop=1min 30s') == [
        '--concurrent-workers=4', '--worker-class=Worker', '--worker-module=crawl_worker', '--timeout-stop=1min 30s',
    ]


@pytest.mark.parametrize('target', TARGETS)
def test_neither_the_environment_nor_this_hosts_users_count(target: str) -> None:
    options = ['--user=nobody-here-has-this-name']
    assert printed(target, *options) == printed(target, *options, SERGEANT_LINUX_TIMEOUT_STOP='1h', SERGEANT_LINUX_X='1')


# The image


def test_the_last_stage_has_no_compiler_no_root_and_the_command_as_pid_1() -> None:
    instructions = dockerfile()
    assert instructions[0] == ('ARG', 'BASE=python:3.12-slim')
    froms = [number for number, (word, _) in enumerate(instructions) if word == 'FROM']
    assert [instructions[number][1] for number in froms] == ['${BASE} AS build', '${BASE}']
    assert any('gcc' in rest and 'libcap-dev' in rest for _, rest in instructions[:froms[1]])
    last = instructions[froms[1]:]
    assert not any(word in rest for _, rest in last for word in ('gcc', '-dev'))
    final = dict(last)
    assert re.fullmatch(r'[1-9]\d*:[1-9]\d*', final['USER'])
    assert final['STOPSIGNAL'] == 'SIGTERM'
    assert json.loads(final['ENTRYPOINT']) == ['sergeant-linux', 'run']
    assert json.loads(final['HEALTHCHECK'].partition('CMD ')[2]) == [
        'sergeant-linux', 'health', '--live', '--control-socket=/run/sergeant-linux/crawl_worker.Worker.sock',
    ]


def test_the_shell_lines_of_the_image_are_a_shells() -> None:
    for word, rest in dockerfile():
        if word == 'RUN':
            done = subprocess.run(['sh', '-n', '-c', rest], capture_output=True, text=True)
            assert (done.returncode, done.stderr) == (0, '')


# How it is run


@pytest.mark.parametrize(('option', 'least'), [([], 8), (['--timeout-stop=1min 30.5s'], 90.5), (['--timeout-stop=1ms'], 0)])
def test_the_grace_is_longer_than_the_supervisors_own(option: list[str], least: float) -> None:
    assert least < int(service(*option)['stop_grace_period'].removesuffix('s')) <= least + 6
    assert least < pod(*option)['terminationGracePeriodSeconds'] <= least + 6


def test_the_memory_is_what_the_workers_limits_and_a_reserve_take() -> None:
    options = '--max-worker-memory-usage=512M', '--concurrent-workers=8'
    expected = resources.needed(8, 512 * MIB) // MIB
    assert expected > 8 * 512
    assert service(*options)['mem_limit'] == service(*options)['memswap_limit'] == f'{expected}m'
    (container,) = pod(*options)['containers']
    assert container['resources']['limits'] == {'memory': f'{expected}Mi'}
    assert container['resources']['requests'] == {'cpu': 8, 'memory': f'{expected}Mi'}


def test_workers_that_are_auto_get_processors_to_count() -> None:
    assert service('--concurrent-workers=auto')['cpus'] == 2
    assert pod('--concurrent-workers=auto')['containers'][0]['resources']['limits']['cpu'] == 2


def test_a_container_is_read_only_but_for_the_socket_and_temporary_files() -> None:
    pool = service()
    assert pool['read_only'] is True
    assert pool['tmpfs'] == ['/run', '/tmp']  # everybody's, by default; podman refuses one with an owner
    spec = pod()
    assert spec['securityContext']['runAsNonRoot'] is True
    (container,) = spec['containers']
    assert container['securityContext'] == {
        'allowPrivilegeEscalation': False, 'readOnlyRootFilesystem': True, 'capabilities': {'drop': ['ALL']},
    }
    mounts = {mount['name']: mount['mountPath'] for mount in container['volumeMounts']}
    assert mounts.keys() == {volume['name'] for volume in spec['volumes']}
    assert container['env'] == [{'name': 'RUNTIME_DIRECTORY', 'value': mounts['run']}]


@pytest.mark.parametrize(('options', 'place', 'pods'), [
    ([], '/run/sergeant-linux/crawl_worker.Worker.sock', '/run/pool/sergeant-linux/crawl_worker.Worker.sock'),
    (['--name=a $b'], '/run/sergeant-linux/a $b.sock', '/run/pool/sergeant-linux/a $b.sock'),
    (['--control-socket=/run/$x.sock'], '/run/$x.sock', '/run/$x.sock'),
])
def test_the_probes_ask_the_pool_by_its_socket(options: list[str], place: str, pods: str) -> None:
    (container,) = pod(*options)['containers']
    for probe, which in (('readinessProbe', '--ready'), ('livenessProbe', '--live')):
        words = list(map(unexpanded, container[probe]['exec']['command']))
        assert words == ['sergeant-linux', 'health', which, f'--control-socket={pods}']
        assert container[probe]['timeoutSeconds'] > 1
    assert list(map(unexpanded, service(*options)['healthcheck']['test'])) == [
        'CMD', 'sergeant-linux', 'health', '--live', f'--control-socket={place}',
    ]


def test_the_image_and_the_number_of_pools_are_as_asked_for() -> None:
    options = '--image=registry.example:5000/crawl@sha256:0f', '--replicas=3'
    assert service(*options)['image'] == pod(*options)['containers'][0]['image'] == options[0].removeprefix('--image=')
    assert service(*options)['scale'] == 3 and 'scale' not in service()
    deployment, scaled = manifests(*options)
    assert deployment['spec']['replicas'] == scaled['spec']['minReplicaCount'] == 3
    assert scaled['spec']['maxReplicaCount'] > 3


def test_the_pods_are_as_many_as_the_queue_is_long() -> None:
    deployment, scaled = manifests('--queue=tasks', '--concurrent-workers=6')
    assert scaled['spec']['scaleTargetRef']['name'] == deployment['metadata']['name']
    (trigger,) = scaled['spec']['triggers']
    assert (trigger['type'], trigger['metadata']['listName']) == ('redis', 'tasks')
    assert trigger['metadata']['listLength'] == '60'  # text: KEDA takes nothing else
    (trigger,) = manifests()[1]['spec']['triggers']
    assert trigger['metadata']['listName'] == 'crawl_worker'


@pytest.mark.parametrize(('options', 'name'), [
    ([], 'crawl-worker'),
    (['--name=Crawl!'], 'crawl'),
    (['--name=…'], 'pool'),
    (['--name=123'], '123'),
    (['--worker-module=' + 'a.' * 60 + 'b'], '-'.join('a' * 25)),
])
def test_the_name_in_kubernetes_is_a_name_there(options: list[str], name: str) -> None:
    deployment, scaled = manifests(*options)
    labels = deployment['spec']['template']['metadata']['labels']
    assert labels == deployment['metadata']['labels'] == deployment['spec']['selector']['matchLabels']
    assert list(labels.values()) == [name] == [deployment['metadata']['name']] == [scaled['metadata']['name']]
    assert re.fullmatch(r'[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?', name)


# What is refused, and what is told


@pytest.mark.parametrize(('options', 'said'), [
    (['nomad', *REQUIRED], "invalid choice: 'nomad'"),
    (['compose'], 'required but not given: --concurrent-workers'),
    (['compose', *REQUIRED, '--timeout-stop=infinity'], '--timeout-stop: expected a finite time span'),
    (['compose', *REQUIRED, '--control-socket=none'], '--control-socket: expected a socket'),
    (['compose', *REQUIRED, '--image=a b'], "--image: expected the name of an image, such as crawl:1.2, not 'a b'"),
    (['compose', *REQUIRED, '--replicas=0'], "--replicas: expected a whole number, 1 or more, not '0'"),
    (['compose', *REQUIRED, '--timeout-stop=soon'], '--timeout-stop: expected a time span'),
])
def test_what_cannot_be_deployed_is_one_line_and_status_2(options: list[str], said: str) -> None:
    assert said in refusal(*options)


def test_help_tells_the_exit_statuses_and_an_example_that_works() -> None:
    done = say('--help')
    assert (done.returncode, done.stderr) == (0, '')
    assert '\nexit status:\n   0  printed\n' in done.stdout
    words = done.stdout.partition('example:')[2].replace('\\\n', ' ').split()
    assert words[:2] == ['sergeant-linux', 'deploy']
    again = say(*words[2:])
    assert (again.returncode, again.stderr) == (0, '')
    assert 'registry.example/hash:1.2' in again.stdout


def test_nothing_is_written_but_to_stdout(tmp_path: Path) -> None:
    env = surroundings({})
    for target in TARGETS:
        words = [sys.executable, '-c', MAIN, 'deploy', target, *REQUIRED]
        with open('/dev/full', 'w') as full:
            done = subprocess.run(words, cwd=tmp_path, env=env, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
        assert (done.returncode, done.stderr.count('\n')) == (1, 1)
    assert list(tmp_path.iterdir()) == []
