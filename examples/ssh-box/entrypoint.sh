#!/bin/sh
# Sessions do not pass through Frostgate, so somebody inside has to tell of them.
frostgate check-in --watch --ssh --interval 30s &
# The server's own keys, once: they are in the container, which a freeze keeps.
ssh-keygen -A
exec /usr/sbin/sshd -D -e
