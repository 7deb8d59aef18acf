package testkit

import (
	"compress/gzip"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestRelay(t *testing.T) {
	defer goleak.VerifyNone(t)
	var left []net.Conn // that a relay's user has open when it ends
	t.Run("serves", func(t *testing.T) {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			host, _, _ := net.SplitHostPort(r.RemoteAddr)
			_, _ = io.WriteString(w, host+" sent "+string(body)+strings.Join(r.Header["X-Forwarded-For"], ","))
		}))
		t.Cleanup(srv.Close)
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		for _, from := range []string{"127.0.0.11", "127.0.0.12"} {
			r := newRelay(t, srv.Listener.Addr().String(), netip.MustParseAddr(from))
			for range 2 * maxRelayed {
				resp, err := client.Post(r.URL, "text/plain", strings.NewReader("words"))
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if want := from + " sent words"; err != nil || string(got) != want {
					t.Fatalf("expected %q, got %q, %v", want, got, err)
				}
			}
			stays, err := net.Dial("tcp", strings.TrimPrefix(r.URL, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			left = append(left, stays)
		}
	})
	for _, conn := range left {
		if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("expected the end of the relay to end its connections, got %v", err)
		}
		conn.Close()
	}
}

func TestRelayToNobody(t *testing.T) {
	r := newRelay(t, FreeAddr(t), netip.MustParseAddr("127.0.0.11"))
	resp, err := http.Get(r.URL)
	if err == nil {
		resp.Body.Close()
		t.Fatal("expected no answer, got " + resp.Status)
	}
}

func TestExchanges(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch r.URL.Path {
		case "/zipped":
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			_, _ = io.WriteString(z, "squeezed")
			_ = z.Close()
		case "/slow":
			_, _ = io.WriteString(w, "a beginning")
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		default:
			w.WriteHeader(http.StatusTeapot)
			_, _ = w.Write(body)
		}
	}))
	defer srv.Close()
	r := newRelay(t, srv.Listener.Addr().String(), netip.MustParseAddr("127.0.0.11"))
	client := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 1}}
	defer client.CloseIdleConnections()
	for _, path := range []string{"/plain?x=1", "/zipped"} {
		resp, err := client.Post(r.URL+path, "text/plain", strings.NewReader("words"))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	slow, err := client.Get(r.URL + "/slow")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(slow.Body, make([]byte, len("a beginning"))); err != nil {
		t.Fatal(err)
	}
	want := []Exchange{
		{"POST", "/plain", http.StatusTeapot, []byte("words")},
		{"POST", "/zipped", http.StatusOK, []byte("squeezed")},
		{"GET", "/slow", http.StatusOK, []byte("a beginning")},
	}
	if diff := cmp.Diff(want, r.Exchanges(t)); diff != "" {
		t.Errorf("while an answer is under way (-want +got):\n%s", diff)
	}
	slow.Body.Close()
	if diff := cmp.Diff(want, r.Exchanges(t)); diff != "" {
		t.Errorf("and after it was broken off (-want +got):\n%s", diff)
	}
}
