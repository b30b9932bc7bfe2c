#!/usr/bin/env python3
"""Images in a bucket become rows in the same bucket: s3_in_and_out.py MODEL BUCKET INPUTS OUTPUT

MODEL answers the objects whose keys begin with INPUTS/. The rows become the object OUTPUT, one JSON object a line. The
AWS variables name the gateway and the key; the command line idunno finds the cluster as docs/clients.md says.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import boto3
from botocore.config import Config


def idunno(*words: str) -> dict:
    """Runs a command, and returns its document."""
    done = subprocess.run(["idunno", "--output", "json", *words], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def main(model: str, bucket: str, inputs: str, output: str) -> None:
    s3 = boto3.client("s3", config=Config(s3={"addressing_style": "path"}))
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{inputs}/")
    objects = sum(page["KeyCount"] for page in pages)
    if not objects:
        sys.exit(f"there is no object {inputs}/… in the bucket {bucket}")
    # A bucket is the first part of the names in the store, so a folder in it is a dataset: nothing is copied.
    job = idunno("add-job", model, "--dataset", f"{bucket}/{inputs}")["job"]
    idunno("start-job", job, "--wait")
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder, "rows.jsonl")
        idunno("get-job-results", job, str(rows))
        s3.upload_file(str(rows), bucket, output, ExtraArgs={"ContentType": "application/jsonl"})
    stats = idunno("get-job-stats", job)["items"][0]
    print(f"{stats['done']} of {objects} objects answered, {stats['dead_letters']} failed: s3://{bucket}/{output}")


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    main(*sys.argv[1:])
