package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"unsafe"
)

// addressOf tells where a buffer is without making it escape to the heap.
func addressOf(buffer *[700]byte) uintptr { return uintptr(unsafe.Pointer(buffer)) }

// answer sends the body back, and more of it where the request asks for more.
func answer(response http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(request.Body)
	check(err)
	size, err := strconv.Atoi(request.URL.Query().Get("size"))
	check(err)
	_, err = response.Write(pattern(size, len(body)))
	check(err)
}

// ask makes COUNT requests in each of eight goroutines, with bodies up to SIZE.
func (w *world) ask(client *http.Client, url string) {
	var all sync.WaitGroup
	for caller := 0; caller < 8; caller++ {
		all.Add(1)
		go func(caller int) {
			defer all.Done()
			for i := 0; i < w.count; i++ {
				size := w.size >> uint((caller+i)%12)
				body := bytes.NewReader(pattern(size, i))
				response, err := client.Post(url+"/?size="+strconv.Itoa(size), "text/plain", body)
				check(err)
				answer, err := io.ReadAll(response.Body)
				check(err)
				check(response.Body.Close())
				if !bytes.Equal(answer, pattern(size, size)) {
					panic("a wrong answer")
				}
			}
		}(caller)
	}
	all.Wait()
}

// http1 is net/http over connections that are watched at both ends.
func http1(w *world) {
	plain := listen()
	server := &http.Server{Handler: http.HandlerFunc(answer)}
	served := make(chan struct{})
	go func() { _ = server.Serve(&watchedListener{plain, w}); close(served) }()
	transport := &http.Transport{
		DialTLSContext: func(_ context.Context, network, address string) (net.Conn, error) {
			conn, err := tls.Dial(network, address, w.clientConfig())
			if err != nil {
				return nil, err
			}
			return w.watch(conn), nil
		},
	}
	w.ask(&http.Client{Transport: transport}, "https://"+plain.Addr().String())
	transport.CloseIdleConnections()
	check(server.Shutdown(context.Background()))
	<-served
}

// http2 leaves the connections to net/http, which speaks HTTP/2 only over a Conn of its own: what one end wrote is
// what the other end read.
func http2(w *world) {
	plain := listen()
	server := &http.Server{Handler: http.HandlerFunc(answer), TLSConfig: w.serverConfig()}
	served := make(chan struct{})
	go func() { _ = server.ServeTLS(plain, "", ""); close(served) }()
	transport := &http.Transport{TLSClientConfig: w.clientConfig(), ForceAttemptHTTP2: true}
	w.ask(&http.Client{Transport: transport}, "https://"+plain.Addr().String())
	transport.CloseIdleConnections()
	check(server.Shutdown(context.Background()))
	<-served
}

type watchedListener struct {
	net.Listener
	world *world
}

func (l *watchedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.world.watch(tls.Server(conn, l.world.serverConfig())), nil
}
