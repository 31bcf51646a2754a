"""Team commerce: labels for products, with nothing but the standard library, one connection a call.

Every twentieth request names a model that is gone, as batch jobs do that nobody has looked at for a while.
"""

from __future__ import annotations

import contextlib
import json
import os
import ssl
import urllib.error
import urllib.request

from mmlocal.clients.pace import RANDOM, around, order, pause


def main() -> None:
    context = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])
    while True:
        gone = RANDOM.random() < 1 / 20
        model = "gpt-4-vision-preview" if gone else "gpt-4.1-nano"
        request = urllib.request.Request(  # noqa: S310  # the address is the local provider's
            f"{os.environ['OPENAI_BASE_URL']}/chat/completions",
            data=json.dumps(
                {"model": model, "messages": [{"role": "user", "content": "Label this."}]}
            ).encode(),
            headers={
                "content-type": "application/json",
                "user-agent": "catalogue-labels/1.0",
                "authorization": f"Bearer {os.environ['OPENAI_API_KEY']}",
                **order(input=around(5_000), output=around(400), status=404 if gone else 200),
            },
        )
        with (
            contextlib.suppress(urllib.error.HTTPError),
            urllib.request.urlopen(request, context=context, timeout=60) as answer,  # noqa: S310
        ):
            answer.read()
        pause(0.8)


main()
