set -u
mkdir -p /var/tmp/ctx/dist; cp dist/*.whl /var/tmp/ctx/dist; cd /var/tmp/ctx
cat > hash_worker.py <<'X'
import time
class Worker:
    def run(self):
        time.sleep(1000)
X
sergeant-linux deploy dockerfile --worker-module=hash_worker --worker-class=Worker --concurrent-workers=2 --max-worker-memory-usage=64M > Dockerfile
O="--format=docker --network=host --pull=never --build-arg=BASE=lab-base --volume=/srv/debs:/srv/debs:ro --volume=/srv/wheels:/srv/wheels:ro --volume=/srv/build/sources.list:/etc/apt/sources.list:ro --volume=/srv/build/apt.conf:/etc/apt/apt.conf.d/99build:ro --volume=/srv/build/pip.conf:/etc/pip.conf:ro"
time podman build $O --layers -t localhost/pool . 2>&1 | tail -50
podman images
podman run -d --name p --network=none --read-only --tmpfs /tmp --tmpfs /run/sergeant-linux:mode=1777 --cap-drop=all --security-opt=no-new-privileges localhost/pool; sleep 6; podman logs p; podman exec p sergeant-linux status; podman healthcheck run p; echo hc $?
time podman stop p; podman inspect -f '{{.State.ExitCode}}' p
sergeant-linux deploy kubernetes --image=localhost/pool:latest --worker-module=hash_worker --worker-class=Worker --concurrent-workers=2 --max-worker-memory-usage=64M | sed '/^---/,$d' > pod.yaml
podman kube play --network=none pod.yaml; echo kube $?
podman ps -a; podman pod ps
