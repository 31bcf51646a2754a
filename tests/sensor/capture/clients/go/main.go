// Both ends of crypto/tls connections in one process, which says what went over them.
//
// Usage: client SCENARIO CERTIFICATE KEY COUNT SIZE. It prints "ready" and waits for a line on standard input, runs,
// prints what each connection wrote and read as JSON, and stays until the next line. COUNT and SIZE are the
// scenario's: how often, and bytes.
package main

import (
	"bufio"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"net"
	"os"
	"strconv"
	"sync"
	"unsafe"
)

var scenarios = map[string]func(*world){
	"calls":     calls,
	"http1":     http1,
	"http2":     http2,
	"stack":     stack,
	"abandoned": abandoned,
	"cut":       cut,
	"tunnel":    tunnel,
	"pieces":    pieces,
}

// world is what a scenario works with.
type world struct {
	certificate tls.Certificate
	count, size int
	mutex       sync.Mutex
	sides       []*side
	facts       map[string]interface{}
}

func main() {
	if len(os.Args) != 6 {
		fmt.Fprintln(os.Stderr, "usage: client SCENARIO CERTIFICATE KEY COUNT SIZE")
		os.Exit(2)
	}
	certificate, err := tls.LoadX509KeyPair(os.Args[2], os.Args[3])
	check(err)
	w := &world{certificate: certificate, facts: map[string]interface{}{}}
	w.count, err = strconv.Atoi(os.Args[4])
	check(err)
	w.size, err = strconv.Atoi(os.Args[5])
	check(err)
	scenario := scenarios[os.Args[1]]
	if scenario == nil {
		check(fmt.Errorf("no scenario %q", os.Args[1]))
	}
	cue := bufio.NewReader(os.Stdin)
	fmt.Println("ready")
	_, _ = cue.ReadString('\n')
	scenario(w)
	w.report()
	_, _ = cue.ReadString('\n')
}

func (w *world) report() {
	reports := []map[string]interface{}{}
	for _, s := range w.sides {
		reports = append(reports, map[string]interface{}{
			"ssl": s.address, "write": s.written.report(), "read": s.read.report(),
		})
	}
	w.facts["connections"] = reports
	check(json.NewEncoder(os.Stdout).Encode(w.facts))
}

// tally is the bytes of one direction. net/http may still be at work when they are reported.
type tally struct {
	mutex  sync.Mutex
	size   int
	digest hash.Hash
}

func (t *tally) add(data []byte) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	t.size += len(data)
	t.digest.Write(data)
}

func (t *tally) report() []interface{} {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	return []interface{}{t.size, hex.EncodeToString(t.digest.Sum(nil))}
}

// side is one end of a connection that keeps account of what its Conn says it moved. The Conn is not held, so that
// the garbage collector may have it.
type side struct {
	address       uintptr
	written, read tally
}

func (w *world) side(conn *tls.Conn) *side {
	s := &side{
		address: uintptr(unsafe.Pointer(conn)),
		written: tally{digest: sha256.New()},
		read:    tally{digest: sha256.New()},
	}
	w.mutex.Lock()
	w.sides = append(w.sides, s)
	w.mutex.Unlock()
	return s
}

// watched is a Conn whose calls are put down in its side.
type watched struct {
	*tls.Conn
	side *side
}

func (w *world) watch(conn *tls.Conn) *watched { return &watched{conn, w.side(conn)} }

func (c *watched) Write(data []byte) (int, error) {
	n, err := c.Conn.Write(data)
	c.side.written.add(data[:n])
	return n, err
}

func (c *watched) Read(data []byte) (int, error) {
	n, err := c.Conn.Read(data)
	c.side.read.add(data[:n])
	return n, err
}

func (w *world) serverConfig() *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{w.certificate}}
}

// The certificate is the test's own; what is tested is not its verification.
func (w *world) clientConfig() *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, ServerName: "localhost"}
}

func listen() net.Listener {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	return listener
}

// echo serves every connection with what it sends, until the listener is closed. It returns when all are done.
func (w *world) echo(listener net.Listener, serve func(*tls.Conn)) {
	var all sync.WaitGroup
	for {
		plain, err := listener.Accept()
		if err != nil {
			all.Wait()
			return
		}
		all.Add(1)
		go func() {
			defer all.Done()
			serve(tls.Server(plain, w.serverConfig()))
		}()
	}
}

// pattern is bytes that depend on their position, so that a shifted or doubled piece shows.
func pattern(size, start int) []byte {
	data := make([]byte, size)
	for i := range data {
		at := start + i
		data[i] = byte(at*7 + (at>>8)*13)
	}
	return data
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
