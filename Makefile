# Each command does its own set-up: what the machine lacks is installed, what is there is left alone.
#
# Facts: python-prctl comes as source and wants gcc, Python's headers and libcap's; Debian and Ubuntu keep these, and
# venv, in packages of their own; the tests start a redis-server, and have calls fail by strace.
# Consequence: first the system's packages (apt-get, as root or by sudo), then a venv, then pip.
# Decision: nothing is asked of the person but `make`; a stamp in the venv lets the second run start at once.
# Price: on other distributions those packages are installed by hand; a message says which.

VENV := .venv

# $(call interpreter,3.12): a Python of that version that runs, or nothing. pyenv has a shim also for a version that is
# not chosen, which then fails, and keeps the real one on no PATH.
interpreter = $(shell for p in python$(1) $${PYENV_ROOT:-$$HOME/.pyenv}/versions/$(1).*/bin/python$(1); do \
	"$$p" -c '' 2> /dev/null && command -v "$$p" && break; done)

PYTHONS := $(foreach version,3.11 3.12 3.13,$(call interpreter,$(version)))
PYTHON := $(firstword $(PYTHONS) python3)
OTHERS := $(filter-out $(PYTHON),$(PYTHONS))

.PHONY: help demo test quick lint pytest wheel package clean system-packages redis-server strace apt-get

help:
	@echo 'make demo      watch a pool of four workers at work'
	@echo 'make test      everything: lint, the tests on each Python from 3.11 to 3.13 that is here, the package'
	@echo 'make quick     a minute of it: lint, the core, the contracts, a scenario for each room'
	@echo 'make lint      ruff, mypy --strict, import-linter'
	@echo 'make pytest    the tests on one Python; PYTEST="-k memory -x" hands options on'
	@echo 'make lab       the tests that need cgroup v2 with its memory controller, on a kernel of their own'
	@echo 'make lab-systemd  the tests that need systemd and podman, in a Debian of their own'
	@echo 'make benchmark-short BEFORE=COMMIT  what this checkout has become faster or slower in since then, in a minute'
	@echo 'make package   build the wheel, install it into a fresh venv, call it'
	@echo 'make clean     remove what these have made in this folder'

demo: $(VENV)/.demo
	@$(VENV)/bin/python -m sergeant_linux.demo

# Facts: the lab is User-Mode Linux, which there is for x86-64 alone; its disk with systemd is made on a Debian, of that
# machine's sources. A version of Python between the oldest and the newest rarely breaks alone.
# Decision: elsewhere the lab's tests run on a host with a delegated cgroup. Everything runs on the oldest Python, all that
# isn't slow on the newest, and between them all that isn't a whole pool either.
HAS_LAB := $(filter x86_64,$(shell uname -m))
HAS_DISK := $(and $(HAS_LAB),$(filter debian,$(shell . /etc/os-release && echo $$ID)))
NEWEST := $(lastword $(OTHERS))

test: $(VENV)/.test redis-server strace $(if $(HAS_LAB),lab-setup)
	@rm -f $(SECOND_TIME)
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target lint $(if $(HAS_DISK),lab-disk)
	@$(MAKE) --no-print-directory pytest PYTEST='--numprocesses=2 $(PYTEST)'
	@$(if $(HAS_LAB),$(MAKE) --no-print-directory lab)
	@$(if $(HAS_DISK),:,echo 'make: without the tests that need systemd and podman; they are for Debian on x86-64')
	@$(MAKE) --no-print-directory package
	@for python in $(OTHERS); do \
		echo "make: the tests again, with $$python"; \
		[ $$python = $(NEWEST) ] && without= || without='--ignore=tests/scenarios --ignore=tests/core'; \
		$(MAKE) --no-print-directory pytest PYTHON=$$python VENV=$(VENV)-$${python##*/} \
			PYTEST="--numprocesses=2 -m 'not slow' $$without" SECOND_TIME=$(SECOND_TIME) || exit; \
	done
	@[ ! -s $(SECOND_TIME) ] || { echo 'make: passed, but only the second time:'; sort -u $(SECOND_TIME); }

lint: $(VENV)/.test
	$(VENV)/bin/ruff check
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

# Facts: the tests play with real processes, signals and deadlines, on a machine that others use too; now and then one
# is late for no fault of the code. A fault that is there is there again.
# Decision: what has failed is run once more, in front of everybody; only what fails twice is a failure, and what passed
# only the second time is listed at the end, by name.
pytest: export FIRST = $(VENV)/bin/python -m pytest $(PYTEST)
pytest: export SECOND = $(FIRST) --numprocesses=0 --last-failed --last-failed-no-failures none
pytest: $(VENV)/.test redis-server strace
	@tests/twice $(SECOND_TIME)

SECOND_TIME := $(CURDIR)/$(VENV)/.second-time

# A scenario for each room, beside the tests that are fast.
QUICK := tests/core tests/contract tests/wire $(addprefix tests/scenarios/, \
	test_end_of_life.py::test_every_life_has_one_record_of_its_end_with_all_its_fields \
	test_reloading.py::test_sighup_is_the_same \
	test_operating.py::test_a_restart_replaces_the_named_worker_alone \
	test_page.py \
	test_stragglers.py::test_what_a_worker_has_started_is_gone_after_a_sigkill_of_the_supervisor \
	test_memory.py::test_no_limit_no_look_and_no_meter \
	test_credentials.py::test_a_group_alone_changes_the_group_alone \
	test_embedding.py::test_all_that_was_borrowed_is_given_back \
	test_notify.py::test_a_pool_tells_of_its_whole_life) \
	tests/cli/test_on_a_pool.py tests/recipes/test_unit.py tests/log/test_log.py

quick: $(VENV)/.test redis-server
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target lint quick-tests

.PHONY: quick-tests
quick-tests:
	$(VENV)/bin/python -m pytest -q -m 'not slow' $(QUICK)

.PHONY: benchmark-short
benchmark-short: $(VENV)/.test
	@$(VENV)/bin/python tests/benchmarks/compare.py $(BEFORE)

# The folder build/ would hand on modules that are no longer in the tree.
wheel: $(VENV)/.test
	rm -rf build dist
	$(VENV)/bin/python -m pip wheel -q --no-deps -w dist .
	rm -rf build

package: wheel
	rm -rf $(VENV)-package
	$(PYTHON) -m venv $(VENV)-package
	$(VENV)-package/bin/python -m pip install -q dist/*.whl
	cd / && $(abspath $(VENV))-package/bin/sergeant-linux --version
	cd / && $(abspath $(VENV))-package/bin/python -m sergeant_linux.supervisor --help > /dev/null
	cd / && for target in dockerfile compose kubernetes; do \
		$(abspath $(VENV))-package/bin/sergeant-linux deploy $$target \
			--worker-module=m --worker-class=C --concurrent-workers=auto > /dev/null || exit; \
	done

clean:
	rm -rf $(VENV) $(VENV)-* build dist *.egg-info .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# $(call set_up,EXTRA): the venv with this project in it, as it lies here, and what the extra names.
define set_up
	@$(MAKE) --no-print-directory system-packages PYTHON=$(PYTHON)
	@$(VENV)/bin/python -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(VENV)/bin/python -m pip install -q --use-pep517 -e '.[$(1)]'
endef

$(VENV)/.demo: pyproject.toml
	$(call set_up,sergeant)
	@touch $@

$(VENV)/.test: pyproject.toml
	$(call set_up,test)
	@touch $@ $(VENV)/.demo

system-packages:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo 'make: Python 3.11 or newer is needed; if it is on no PATH: make PYTHON=/path/to/python3.11 ...' >&2; exit 1; }
	@lacks=; python=$$($(PYTHON) -c 'import sys; print("python%d.%d" % sys.version_info[:2])'); \
	include=$$($(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("include"))'); \
	$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || lacks="$$lacks $$python-venv"; \
	[ -e "$$include/Python.h" ] || lacks="$$lacks $$python-dev"; \
	command -v gcc > /dev/null || lacks="$$lacks gcc libc6-dev"; \
	echo '#include <sys/capability.h>' | cpp > /dev/null 2>&1 || lacks="$$lacks libcap-dev"; \
	[ -z "$$lacks" ] || $(MAKE) --no-print-directory apt-get PACKAGES="$$lacks"

strace:
	@command -v strace > /dev/null || $(MAKE) --no-print-directory apt-get PACKAGES=strace

redis-server:
	@command -v redis-server > /dev/null || $(MAKE) --no-print-directory apt-get PACKAGES=redis-server

SUDO := $(if $(filter-out 0,$(shell id -u)),sudo)

apt-get:
	@echo 'make: this machine lacks $(PACKAGES)'
	@type apt-get $(SUDO) > /dev/null || { \
		echo 'make: apt-get, as root or by sudo, would install them; please install them (the names are Debian'"'"'s)' >&2; exit 1; }
	$(SUDO) apt-get update -q
	$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $(PACKAGES)

# The lab: a Linux with cgroup v2 of its own, in a process; see vagrant/README.md.

LABS_ON_DISK := lab-of-podman lab-of-units

.PHONY: lab lab-of-root lab-of-nobody $(LABS_ON_DISK) lab-setup lab-systemd lab-disk vagrantfile

# beside the lab's own tests two whose answer depends on the age of the kernel
LAB := tests/lab $(addprefix tests/kernel/test_pidref.py::test_a_,thread_is_no_process session_whose_leader_is_gone_is_no_process)

# Two kernels at once, one for each processor. What a lab writes is forgotten with it, so its second run is a whole one.
lab: $(VENV)/.test lab-setup $(if $(HAS_DISK),lab-disk wheel)
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target lab-of-root lab-of-nobody $(if $(HAS_DISK),$(LABS_ON_DISK))

lab-of-root: export FIRST = vagrant/lab --timeout 20min -- $(VENV)/bin/python -m pytest $(LAB)
lab-of-root:
	@tests/twice $(SECOND_TIME)

lab-of-nobody: export FIRST = vagrant/lab --timeout 20min --user nobody -- $(VENV)/bin/python -m pytest -p no:cacheprovider -m 'not slow' tests/lab
lab-of-nobody:
	@tests/twice $(SECOND_TIME)


lab-setup:
	@PATH="$$PATH:/usr/sbin:/sbin"; lacks=; \
	for pair in linux.uml:user-mode-linux insmod:kmod ip:iproute2 setfattr:attr; do \
		command -v $${pair%:*} > /dev/null || lacks="$$lacks $${pair#*:}"; \
	done; \
	[ -z "$$lacks" ] || $(MAKE) --no-print-directory apt-get PACKAGES="$$lacks"

# The lab with systemd and podman: a disk, which is built once and kept in ~/.cache, below User-Mode Linux.

lab-systemd: $(VENV)/.test lab-disk wheel
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target $(LABS_ON_DISK)

lab-of-podman: export FIRST = vagrant/lab --systemd --timeout 20min -- python -m pytest -p no:cacheprovider tests/containers
lab-of-podman:
	@tests/twice $(SECOND_TIME)

lab-of-units: export FIRST = vagrant/lab --systemd --timeout 20min -- python -m pytest -p no:cacheprovider tests/systemd
lab-of-units:
	@tests/twice $(SECOND_TIME)

lab-disk: $(VENV)/.test lab-setup
	@PATH="$$PATH:/usr/sbin:/sbin"; lacks=; \
	for pair in mmdebstrap:mmdebstrap mke2fs:e2fsprogs unshare:util-linux; do \
		command -v $${pair%:*} > /dev/null || lacks="$$lacks $${pair#*:}"; \
	done; \
	[ -z "$$lacks" ] || $(MAKE) --no-print-directory apt-get PACKAGES="$$lacks"
	$(SUDO) env XDG_CACHE_HOME="$${XDG_CACHE_HOME:-$$HOME/.cache}" $(VENV)/bin/python vagrant/image.py

vagrantfile:
	@command -v vagrant > /dev/null || $(MAKE) --no-print-directory apt-get PACKAGES=vagrant
	cd vagrant && vagrant validate --ignore-provider
