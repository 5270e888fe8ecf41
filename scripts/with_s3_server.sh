#!/usr/bin/env bash
# Runs a command beside an S3 server of its own, an empty bucket's address in DCFORMER_TEST_BUCKET and the way to it in the AWS_
# variables: MinIO if it is installed, else moto's server (pip install 'moto[server]'; MOTO_SERVER says where). With neither,
# says so and runs the command without, which then skips what needs one.
#
#   scripts/with_s3_server.sh cargo test --release --features s3 bucket
set -euo pipefail
moto=${MOTO_SERVER:-$(command -v moto_server || true)}
minio=$(command -v minio || true)
if [ -z "$moto$minio" ] || ! command -v curl > /dev/null; then
    echo "no S3 server: install MinIO, or moto ('moto[server]'), and curl; tests with a server are skipped" >&2
    exec "$@"
fi

address="127.0.0.1:${S3_PORT:-19000}"
export AWS_ACCESS_KEY_ID=dcformer AWS_SECRET_ACCESS_KEY=dcformer-test AWS_REGION=us-east-1
export AWS_ENDPOINT_URL="http://$address"
work=$(mktemp -d)
if [ -n "$minio" ]; then
    MINIO_ROOT_USER=$AWS_ACCESS_KEY_ID MINIO_ROOT_PASSWORD=$AWS_SECRET_ACCESS_KEY \
        "$minio" server "$work/data" --address "$address" > "$work/log" 2>&1 &
else
    "$moto" -H "${address%:*}" -p "${address#*:}" > "$work/log" 2>&1 &
fi
server=$!
trap 'kill "$server" 2> /dev/null || true; wait "$server" 2> /dev/null || true; rm -rf "$work"' EXIT

bucket=dcformer-test
create() {
    curl --silent --fail --output /dev/null --request PUT "$AWS_ENDPOINT_URL/$bucket" \
        --aws-sigv4 "aws:amz:$AWS_REGION:s3" --user "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY"
}
for _ in $(seq 100); do
    if create; then
        DCFORMER_TEST_BUCKET="s3://$bucket" "$@"
        exit
    fi
    kill -0 "$server" 2> /dev/null || break
    sleep 0.2
done
echo "the S3 server does not answer at $address:" >&2
cat "$work/log" >&2
exit 1
