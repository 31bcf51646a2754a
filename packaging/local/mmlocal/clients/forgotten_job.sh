#!/bin/sh
# Nobody's: a job that no rule knows, on a model that no price list has. It shows as unallocated and unpriced.
while :; do
    curl --silent --output /dev/null --cacert "$SSL_CERT_FILE" --max-time 60 "$OPENAI_BASE_URL/chat/completions" \
        --header "authorization: Bearer $OPENAI_API_KEY" --header "content-type: application/json" \
        --header "x-local-provider: input=3000; output=600" \
        --data '{"model":"acme-internal-7b","messages":[{"role":"user","content":"Summarise."}]}'
    sleep 7
done
