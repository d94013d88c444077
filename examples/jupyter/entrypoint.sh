#!/bin/sh
# Who looks at a notebook comes by Frostgate, which sees that. What goes on computing when the browser
# is shut can be seen from inside only.
frostgate check-in --watch --cpu 10 --interval 30s &
exec start-notebook.py --ServerApp.token="$TOKEN"
