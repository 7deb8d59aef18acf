package catalog

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"muster"
)

// convict has the network list n addresses.
func (r *rig) convict(n int) {
	entries := make([]muster.ListEntry, n)
	for i := range entries {
		entries[i] = muster.ListEntry{
			Source: muster.SourceFromAddr(netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)})), Scenario: scenarios[i%len(scenarios)],
			Remedy: muster.RemedyBan, Until: start.Add(time.Duration(1+i%72) * time.Hour), Score: float32(i % 100),
		}
	}
	r.network.put(muster.Network, entries...)
}

// What a pull adds to find and sign the links of three lists.
func BenchmarkLinks(b *testing.B) {
	r := newRig(b)
	r.convict(50_000)
	for _, list := range []string{"muster-ssh", "muster-http", "muster-top-1000"} {
		r.subscribe(b, list, muster.SubscriberOrganisation, "o1", "")
	}
	r.Links("m1", "o1", nil) // puts the lists together
	b.ReportAllocs()
	for b.Loop() {
		if n := len(r.Links("m1", "o1", []string{"web"})); n != 3 {
			b.Fatal(n)
		}
	}
}

// Machines without subscriptions, nearly all, pay next to nothing.
func BenchmarkNoLinks(b *testing.B) {
	r := newRig(b)
	r.subscribe(b, "muster-ssh", muster.SubscriberOrganisation, "o2", "")
	b.ReportAllocs()
	for b.Loop() {
		r.Links("m1", "o1", []string{"web"})
	}
}

func BenchmarkServeLink(b *testing.B) {
	r := newRig(b)
	r.convict(50_000)
	r.subscribe(b, "muster-ssh", muster.SubscriberOrganisation, "o1", "")
	q := httptest.NewRequest(http.MethodGet, r.Links("m1", "o1", nil)[0].URL, nil)
	q.SetPathValue("id", "muster-ssh")
	q.Header.Set("Accept-Encoding", "gzip")
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		r.ServeLink(w, q)
		b.SetBytes(int64(w.Body.Len()))
	}
}

// Putting a list together again after a verdict changed.
func BenchmarkBuild(b *testing.B) {
	for _, name := range []string{"community", "muster-ssh", "muster-top-1000"} {
		b.Run(fmt.Sprintf("%s of 50,000", name), func(b *testing.B) {
			r := newRig(b)
			r.convict(50_000)
			l, err := r.List(name)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.build(b.Context(), &l, ""); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
