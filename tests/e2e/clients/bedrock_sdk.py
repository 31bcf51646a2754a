"""boto3 as an application uses it: a Converse stream, an invocation, a stream of one. Argument: base URL."""

from __future__ import annotations

import json
import sys

import boto3  # type: ignore[import-untyped]

ASK = [{"role": "user", "content": [{"text": "Name a prime above nine."}]}]

# The account is nobody's, and no server of a cloud is asked for another.
client = boto3.client(
    "bedrock-runtime",
    endpoint_url=sys.argv[1],
    region_name="eu-central-1",
    aws_access_key_id="AKIATESTTESTTESTTEST",
    aws_secret_access_key="secret-of-nobody",
)
for _event in client.converse_stream(modelId="eu.amazon.nova-pro-v1:0", messages=ASK)["stream"]:
    pass
client.invoke_model(
    modelId="amazon.titan-text-express-v1", body=json.dumps({"inputText": "Name a prime above nine."})
)["body"].read()
streamed = client.invoke_model_with_response_stream(
    modelId="anthropic.claude-3-5-sonnet-20241022-v2:0",
    body=json.dumps({"anthropic_version": "bedrock-2023-05-31", "max_tokens": 64, "messages": ASK}),
)
for _event in streamed["body"]:
    pass
