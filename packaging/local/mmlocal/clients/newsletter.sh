#!/bin/sh
# Team growth: a newsletter written with curl, through the router with the team's own key. It spends more than
# its budget and is then refused.
refused=no
while :; do
    answer=$(curl --silent --show-error --max-time 60 "$ANTHROPIC_BASE_URL/v1/messages" \
        --header "x-api-key: $ANTHROPIC_API_KEY" --header "anthropic-version: 2023-06-01" \
        --header "content-type: application/json" \
        --header "x-local-provider: input=22000; output=4000; delay_ms=250" \
        --data '{"model":"claude-sonnet-4-6","max_tokens":8000,"messages":[{"role":"user","content":"Write it."}]}')
    case $answer in
    *'"error"'*)
        [ $refused = yes ] || echo "WARNING refused by the router: $answer"
        refused=yes
        sleep 5
        ;;
    *)
        refused=no
        sleep 2
        ;;
    esac
done
