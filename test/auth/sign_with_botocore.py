"""Signs requests with botocore. Reads a JSON list of requests from stdin, writes the list of what each became.

A request: style (v4, s3, query), method, url, headers, body. An answer: url, headers.
"""

import json
import sys

from botocore.auth import S3SigV4Auth, SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

styles = {"v4": SigV4Auth, "s3": S3SigV4Auth, "query": SigV4QueryAuth}
given = json.load(sys.stdin)
credentials = Credentials(given["accessKeyId"], given["secretAccessKey"])
answers = []
for one in given["requests"]:
    request = AWSRequest(
        method=one["method"], url=one["url"], headers=one["headers"], data=one["body"].encode()
    )
    styles[one["style"]](credentials, one["service"], "local").add_auth(request)
    answers.append({"url": request.url, "headers": dict(request.headers.items())})
json.dump(answers, sys.stdout)
