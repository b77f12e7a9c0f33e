cd /var/tmp
sergeant-linux deploy dockerfile --worker-module=m --worker-class=C --concurrent-workers=1 | sed -n '/^ARG/p;0,/^FROM/!{/^FROM/,/^COPY/p}' | grep -v COPY > df; cat df
podman images
podman run --rm --network=none lab-base sh -c 'command -v groupadd useradd install; ls -l /usr/sbin/useradd; echo $PATH'
