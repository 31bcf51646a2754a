"""Python's ways to call a TLS server: posts each file and expects it back.

Usage: python.py LIBRARY URL CA FILE...
"""

from __future__ import annotations

import asyncio
import http.client
import ssl
import sys
from pathlib import Path
from urllib.parse import urlsplit

LIBRARY, URL, CA = sys.argv[1:4]
BODIES = [Path(name).read_bytes() for name in sys.argv[4:]]
ADDRESS = urlsplit(URL)
HOST, PORT = ADDRESS.hostname or "", ADDRESS.port or 443
TIMEOUT_S = 60


def expect(body: bytes, answer: bytes) -> None:
    if answer != body:
        sys.exit(f"{len(answer)} bytes came back of {len(body)}")


def use_http_client() -> None:
    connection = http.client.HTTPSConnection(
        HOST, PORT, context=ssl.create_default_context(cafile=CA), timeout=TIMEOUT_S
    )
    for body in BODIES:
        connection.request("POST", "/", body)
        expect(body, connection.getresponse().read())
    connection.close()


def use_asyncio() -> None:
    async def run() -> None:
        context = ssl.create_default_context(cafile=CA)
        reader, writer = await asyncio.open_connection(HOST, PORT, ssl=context)
        for body in BODIES:
            writer.write(
                f"POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
            )
            await writer.drain()
            head = await reader.readuntil(b"\r\n\r\n")
            assert b" 200 " in head
            expect(body, await reader.readexactly(len(body)))
        writer.close()
        await writer.wait_closed()

    asyncio.run(run())


def use_requests() -> None:
    import requests

    with requests.Session() as session:
        session.trust_env = False  # REQUESTS_CA_BUNDLE would come before `verify`
        session.verify = CA
        for body in BODIES:
            expect(body, session.post(URL, data=body, timeout=TIMEOUT_S).content)


def use_httpx() -> None:
    import httpx

    with httpx.Client(verify=ssl.create_default_context(cafile=CA), timeout=TIMEOUT_S) as client:
        for body in BODIES:
            expect(body, client.post(URL, content=body).content)


def use_aiohttp() -> None:
    import aiohttp

    async def run() -> None:
        context = ssl.create_default_context(cafile=CA)
        async with aiohttp.ClientSession() as session:
            for body in BODIES:
                async with session.post(URL, data=body, ssl=context) as answer:
                    expect(body, await answer.read())

    asyncio.run(run())


def use_pycurl() -> None:
    """Its wheel brings a libcurl and a libssl of its own."""
    import io

    import pycurl

    handle = pycurl.Curl()
    handle.setopt(pycurl.CAINFO, CA)
    handle.setopt(pycurl.URL, URL)
    for body in BODIES:
        answer = io.BytesIO()
        handle.setopt(pycurl.POST, 1)
        handle.setopt(pycurl.POSTFIELDSIZE, len(body))
        handle.setopt(pycurl.READDATA, io.BytesIO(body))
        handle.setopt(pycurl.WRITEDATA, answer)
        handle.perform()
        expect(body, answer.getvalue())
    handle.close()


def use_curl_cffi() -> None:
    """BoringSSL, linked into its libcurl."""
    from curl_cffi import requests

    with requests.Session(impersonate="chrome") as session:
        for body in BODIES:
            expect(body, session.post(URL, data=body, verify=CA, timeout=TIMEOUT_S).content)


def use_httpr() -> None:
    """rustls, linked into a library that is written in Rust."""
    import httpr

    with httpr.Client(ca_cert_file=CA, timeout=TIMEOUT_S) as client:
        for body in BODIES:
            expect(body, client.post(URL, content=body).content)


def use_grpcio() -> None:
    """BoringSSL, linked into grpcio's extension module."""
    import grpc

    # Its own resolver has no business with a proxy here, and a message may be as long as the longest file.
    options = [("grpc.max_receive_message_length", -1), ("grpc.enable_http_proxy", 0)]
    credentials = grpc.ssl_channel_credentials(Path(CA).read_bytes())
    with grpc.secure_channel(f"{HOST}:{PORT}", credentials, options) as channel:
        call = channel.unary_unary("/modelmeter.test.Echo/Echo", lambda body: body, lambda body: body)
        for body in BODIES:
            expect(body, call(body, timeout=TIMEOUT_S))


{
    "http.client": use_http_client,
    "asyncio": use_asyncio,
    "requests": use_requests,
    "httpx": use_httpx,
    "aiohttp": use_aiohttp,
    "pycurl": use_pycurl,
    "curl_cffi": use_curl_cffi,
    "grpcio": use_grpcio,
    "httpr": use_httpr,
}[LIBRARY]()
