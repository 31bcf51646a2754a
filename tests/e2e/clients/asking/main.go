// Gemini by Go's net/http: streams of several models at a time, over one HTTP/2 connection.
// Usage: asking HOST:PORT CA MODEL...; without arguments it waits for the end of its input.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
)

const host = "https://generativelanguage.googleapis.com"
const body = `{"contents": [{"role": "user", "parts": [{"text": "Name a prime above nine."}]}]}`

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func clientOf(server, ca string) *http.Client {
	authority, err := os.ReadFile(ca)
	check(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, server)
	}
	return &http.Client{Transport: &http.Transport{
		DialContext:       dial,
		ForceAttemptHTTP2: true,
		TLSClientConfig:   &tls.Config{RootCAs: roots},
	}}
}

func ask(client *http.Client, model string) error {
	url := fmt.Sprintf("%s/v1beta/models/%s:streamGenerateContent?alt=sse", host, model)
	request, err := http.NewRequest("POST", url, bytes.NewReader([]byte(body)))
	if err != nil {
		return err
	}
	request.Header.Set("content-type", "application/json")
	request.Header.Set("x-goog-api-key", "test")
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", model, answer.Status)
	}
	_, err = io.Copy(io.Discard, answer.Body)
	return err
}

func main() {
	if len(os.Args) < 3 {
		_, err := io.Copy(io.Discard, os.Stdin)
		check(err)
		return
	}
	client := clientOf(os.Args[1], os.Args[2])
	ended := make(chan error)
	for _, model := range os.Args[3:] {
		go func(model string) { ended <- ask(client, model) }(model)
	}
	for range os.Args[3:] {
		check(<-ended)
	}
	client.CloseIdleConnections()
}
