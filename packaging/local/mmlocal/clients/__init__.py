"""The demo's applications: ordinary programs, each with another HTTP client, none knowing of ModelMeter.

They differ from real ones in one thing: a header tells the local provider how many tokens to report, so
that the dashboard shows the sizes such applications have in practice. Where to call and what to trust they
take from the environment variables that the SDKs define.
"""
