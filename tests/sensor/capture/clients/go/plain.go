package main

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"time"
)

func (w *world) echoAll(conn *tls.Conn) {
	stream := w.watch(conn)
	buffer := make([]byte, 100_000)
	for {
		n, err := stream.Read(buffer)
		if n > 0 {
			if _, err := stream.Write(buffer[:n]); err != nil {
				break
			}
		}
		if err != nil {
			break
		}
	}
	_ = stream.Close()
}

// calls is COUNT parallel connections of SIZE bytes each way, in goroutines that the scheduler moves about.
func calls(w *world) {
	listener := listen()
	served := make(chan struct{})
	go func() { w.echo(listener, w.echoAll); close(served) }()
	var all sync.WaitGroup
	for i := 0; i < w.count; i++ {
		all.Add(1)
		go func(number int) {
			defer all.Done()
			conn, err := tls.Dial("tcp", listener.Addr().String(), w.clientConfig())
			check(err)
			stream := w.watch(conn)
			var writing sync.WaitGroup
			writing.Add(1)
			go func() {
				defer writing.Done()
				_, err := stream.Write(pattern(w.size, number))
				check(err)
			}()
			_, err = io.CopyN(io.Discard, stream, int64(w.size))
			check(err)
			writing.Wait()
			check(stream.Close())
			_ = stream.Close() // a second time is allowed
		}(i)
	}
	all.Wait()
	check(listener.Close())
	<-served
}

// pieces is one connection with writes of 1 byte, 2, 3 ... around every edge of a record's size.
func pieces(w *world) {
	listener := listen()
	served := make(chan struct{})
	go func() { w.echo(listener, w.echoAll); close(served) }()
	conn, err := tls.Dial("tcp", listener.Addr().String(), w.clientConfig())
	check(err)
	stream := w.watch(conn)
	for edge := 1; edge <= w.size; edge *= 2 {
		for _, size := range []int{edge - 1, edge, edge + 1} {
			_, err := stream.Write(pattern(size, size))
			check(err)
			_, err = io.CopyN(io.Discard, stream, int64(size))
			check(err)
		}
	}
	check(stream.Close())
	check(listener.Close())
	<-served
}

// stack has the buffers on the goroutine's stack, and moves it in the middle of the calls: it grows in the
// handshake, and the garbage collector shrinks it while the goroutine waits in Read.
func stack(w *world) {
	listener := listen()
	served := make(chan struct{})
	hold := make(chan struct{})
	go func() {
		w.echo(listener, func(conn *tls.Conn) {
			stream := w.watch(conn)
			buffer := make([]byte, w.size)
			_, err := io.ReadFull(stream, buffer)
			check(err)
			<-hold
			_, err = stream.Write(buffer)
			check(err)
			_ = stream.Close()
		})
		close(served)
	}()
	moved := 0
	for i := 0; i < w.count; i++ {
		done := make(chan bool)
		go func() { done <- w.onStack(listener.Addr().String()) }()
		for j := 0; j < 4; j++ {
			time.Sleep(20 * time.Millisecond)
			runtime.GC()
		}
		hold <- struct{}{}
		if <-done {
			moved++
		}
	}
	w.facts["moved"] = moved
	check(listener.Close())
	<-served
}

// onStack says whether the stack has moved while its buffer was being read into.
func (w *world) onStack(address string) bool {
	conn, err := tls.Dial("tcp", address, w.clientConfig())
	check(err)
	side := w.side(conn)
	data := pattern(w.size, 1)
	n, err := conn.Write(data)
	check(err)
	side.written.add(data[:n])
	deepen(200)
	return readOnStack(conn, side, w.size)
}

//go:noinline
func readOnStack(conn *tls.Conn, side *side, size int) bool {
	var buffer [700]byte
	before := addressOf(&buffer)
	moved := false
	for read := 0; read < size; {
		n, err := conn.Read(buffer[:])
		check(err)
		side.read.add(append([]byte(nil), buffer[:n]...))
		read += n
		moved = moved || addressOf(&buffer) != before
	}
	check(conn.Close())
	return moved
}

// deepen leaves a large stack behind, for the garbage collector to shrink.
//
//go:noinline
func deepen(depth int) byte {
	var room [512]byte
	room[depth%len(room)] = 1
	if depth == 0 {
		return room[0]
	}
	return deepen(depth-1) + room[depth%len(room)]
}

// abandoned drops COUNT connections without a Close, one after another, so that the garbage collector gives their
// addresses to the next ones.
func abandoned(w *world) {
	listener := listen()
	served := make(chan struct{})
	go func() { w.echo(listener, w.echoAll); close(served) }()
	for i := 0; i < w.count; i++ {
		plain, err := net.Dial("tcp", listener.Addr().String())
		check(err)
		w.useAndDrop(plain, i)
		check(plain.Close())
		plain = nil
		runtime.GC()
	}
	check(listener.Close())
	<-served
}

func (w *world) useAndDrop(plain net.Conn, number int) {
	stream := w.watch(tls.Client(plain, w.clientConfig()))
	// No Handshake: the first Write does it.
	_, err := stream.Write(pattern(w.size+number, number))
	check(err)
	_, err = io.CopyN(io.Discard, stream, int64(w.size+number))
	check(err)
}

// cut has Writes that fail in the middle, and Reads that return their last bytes together with the end.
func cut(w *world) {
	listener := listen()
	served, stuck := make(chan struct{}), make(chan struct{})
	go func() {
		w.echo(listener, func(conn *tls.Conn) {
			stream := w.watch(conn)
			_, err := stream.Write(pattern(w.size, 3))
			check(err)
			_, _ = io.CopyN(io.Discard, stream, 1) // and no more: the peer's Write gets stuck
			<-stuck
			_ = stream.Close()
		})
		close(served)
	}()
	large := pattern(64<<20, 5)
	partly := 0
	for i := 0; i < w.count; i++ {
		conn, err := tls.Dial("tcp", listener.Addr().String(), w.clientConfig())
		check(err)
		stream := w.watch(conn)
		_, err = io.CopyN(io.Discard, stream, int64(w.size))
		check(err)
		check(conn.SetWriteDeadline(time.Now().Add(200 * time.Millisecond)))
		n, err := stream.Write(large)
		if n > 0 && err != nil {
			partly++
		}
		stuck <- struct{}{}
		for err = nil; err == nil; {
			_, err = stream.Read(make([]byte, 1000))
		}
		if !errors.Is(err, io.EOF) {
			w.facts["end"] = err.Error()
		}
		_ = stream.Close()
	}
	w.facts["partly"] = partly
	check(listener.Close())
	<-served
}

// tunnel is TLS inside of TLS: a call on the inner connection makes calls on the outer one.
func tunnel(w *world) {
	listener := listen()
	served := make(chan struct{})
	go func() {
		w.echo(listener, func(outer *tls.Conn) {
			w.echoAll(tls.Server(w.watch(outer), w.serverConfig()))
		})
		close(served)
	}()
	for i := 0; i < w.count; i++ {
		outer, err := tls.Dial("tcp", listener.Addr().String(), w.clientConfig())
		check(err)
		inner := w.watch(tls.Client(w.watch(outer), w.clientConfig()))
		_, err = inner.Write(pattern(w.size, i))
		check(err)
		_, err = io.CopyN(io.Discard, inner, int64(w.size))
		check(err)
		check(inner.Close())
	}
	check(listener.Close())
	<-served
}
