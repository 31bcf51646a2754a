// Go's way to call a TLS server: posts each file and expects it back. Usage: posting URL CA FILE...
package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	authority, err := os.ReadFile(os.Args[2])
	check(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}
	client := &http.Client{Transport: transport}
	for _, name := range os.Args[3:] {
		body, err := os.ReadFile(name)
		check(err)
		answer, err := client.Post(os.Args[1], "application/octet-stream", bytes.NewReader(body))
		check(err)
		returned, err := io.ReadAll(answer.Body)
		check(err)
		answer.Body.Close()
		if !bytes.Equal(returned, body) {
			check(fmt.Errorf("%d bytes came back of %d", len(returned), len(body)))
		}
	}
	client.CloseIdleConnections()
}
