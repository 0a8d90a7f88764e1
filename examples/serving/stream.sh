#!/bin/sh
# Draw with curl, and write each estimate over the one before: a viewer shows how the digit comes.
#
#     difftool serve ddpm-mnist
#     sh examples/serving/stream.sh http://127.0.0.1:8000 digit.png
set -eu
url=$1 picture=$2 cr=$(printf '\r')
rm -f "$picture"

# -N shows events as they come. Each is a line of "event: " and its name, and one of "data: " and JSON.
curl -sSN --json '{"num_inference_steps": 50, "stream": true, "partial_images": 3}' \
    "$url/v1/images/generations" |
while read -r field value; do
    case $field in
    event:) echo "${value%"$cr"}" ;;
    data:) echo "$value" | sed -n 's/.*"b64_json": "\([^"]*\)".*/\1/p' | base64 -d > "$picture" ;;
    esac
done
test -s "$picture"
