package testkit

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"slices"
	"sync"
	"testing"
)

// Exchange is a request that went through a Relay, with its answer.
type Exchange struct {
	Method string
	Path   string // without the query
	Status int
	Body   []byte // of the answer, decompressed; what has come so far, while it is under way
}

// maxTape bounds what is kept of either direction of a connection.
const maxTape = 16 << 20

// tape is what was said on one connection.
type tape struct{ asked, answered copied }

type copied struct {
	mu   sync.Mutex
	all  []byte
	full bool // something was not kept
}

// Write never fails: whoever relays must not be stopped by who listens.
func (c *copied) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.full = c.full || len(c.all)+len(b) > maxTape; !c.full {
		c.all = append(c.all, b...)
	}
	return len(b), nil
}

// text returns what was said so far.
func (c *copied) text(t testing.TB) *bufio.Reader {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.full {
		t.Fatalf("more than %d bytes went over one connection: not all of them were kept", maxTape)
	}
	return bufio.NewReader(bytes.NewReader(slices.Clone(c.all)))
}

func (r *Relay) record() *tape {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tapes = append(r.tapes, &tape{})
	return r.tapes[len(r.tapes)-1]
}

// Exchanges returns every request so far that has at least the head of its
// answer, in the order of the connections. What is no HTTP fails the test.
func (r *Relay) Exchanges(t testing.TB) []Exchange {
	t.Helper()
	r.mu.Lock()
	tapes := slices.Clone(r.tapes)
	r.mu.Unlock()
	var all []Exchange
	for _, said := range tapes {
		// What was asked is read last, so that no answer is without its request.
		answers := said.answered.text(t)
		asked := said.asked.text(t)
		for {
			if _, err := answers.Peek(1); err != nil {
				break
			}
			e, err := exchange(asked, answers)
			if errors.Is(err, io.ErrUnexpectedEOF) {
				break // under way, or broken off
			}
			if err != nil {
				t.Fatalf("what went to and from %s could not be read: %v", r.From, err)
			}
			all = append(all, e)
		}
	}
	return all
}

// exchange reads one request and its answer. An answer whose head is not whole is
// io.ErrUnexpectedEOF.
func exchange(asked, answers *bufio.Reader) (e Exchange, err error) {
	req, err := http.ReadRequest(asked)
	if err != nil {
		return e, err
	}
	if _, err := io.Copy(io.Discard, req.Body); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return e, err // a refusal may come before the end of what is refused
	}
	resp, err := http.ReadResponse(answers, req)
	if err != nil {
		return e, err
	}
	defer resp.Body.Close()
	e = Exchange{Method: req.Method, Path: req.URL.Path, Status: resp.StatusCode}
	var body io.Reader = resp.Body
	if resp.Header.Get("Content-Encoding") == "gzip" {
		if body, err = gzip.NewReader(resp.Body); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return e, nil // nothing so far
		} else if err != nil {
			return e, err
		}
	}
	if e.Body, err = io.ReadAll(body); errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil // so far
	}
	return e, err
}
