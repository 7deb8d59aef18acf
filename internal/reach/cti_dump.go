package reach

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"

	"muster"
	"muster/internal/cti"
)

// dump is the community list as one file.
type dump struct {
	version uint64
	made    time.Time
	used    time.Time
	body    []byte
	digest  [sha256.Size]byte
}

// dumpKeep is how long a dump is given although the list has changed.
const dumpKeep = time.Minute

// dumpForm is a form of dumps.
type dumpForm struct {
	contentType string
	write       func(l *Lookups, ctx context.Context, n *listing, w io.Writer) error
}

var dumpForms = map[string]dumpForm{
	"mmdb":     {"application/vnd.maxmind.maxmind-db", (*Lookups).writeMMDB},
	"jsonl.gz": {"application/gzip", (*Lookups).writeZippedLines},
	"jsonl":    {"application/jsonl", (*Lookups).writeLines},
}

// dumped answers GET /v2/dump.mmdb and /v2/dump.jsonl.gz.
func (l *Lookups) dumped(w http.ResponseWriter, r *http.Request, key *lookupKey, format string) error {
	if err := l.spend(key, 1); err != nil {
		return err
	}
	d, err := l.dump(r.Context(), format)
	if err != nil {
		return err
	}
	h := w.Header()
	etag := hex.EncodeToString(d.digest[:])
	h.Set("ETag", `"`+etag+`"`)
	h.Set("Last-Modified", d.made.UTC().Format(http.TimeFormat))
	h.Set("Repr-Digest", "sha-256=:"+base64.StdEncoding.EncodeToString(d.digest[:])+":") // RFC 9530
	h.Set("X-Checksum-Sha256", etag)
	h.Set("Cache-Control", "private, no-cache")
	if unchanged(r, etag, d.made) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	h.Set("Content-Type", dumpForms[format].contentType)
	h.Set("Content-Disposition", `attachment; filename="muster.`+format+`"`)
	h.Set("Content-Length", strconv.Itoa(len(d.body)))
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodGet {
		_, _ = w.Write(d.body)
	}
	return nil
}

// Dump writes the community list: "mmdb", or "jsonl" with an object in each line.
func (l *Lookups) Dump(ctx context.Context, format string, w io.Writer) error {
	form, ok := dumpForms[format]
	if !ok {
		return muster.Errorf(muster.Invalid, "format: expected mmdb or jsonl, got %q", clipped(format))
	}
	done, err := l.begin(ctx)
	if err != nil {
		return err
	}
	defer done()
	return form.write(l, ctx, l.listed(), w)
}

// dump returns a dump of the list as it is, or was a minute ago.
func (l *Lookups) dump(ctx context.Context, format string) (*dump, error) {
	l.dumpMu.Lock()
	defer l.dumpMu.Unlock()
	now := l.cfg.Now()
	n := l.listed()
	d := l.dumps[format]
	if d == nil || d.version != n.version && now.Sub(d.made) >= dumpKeep || now.Sub(d.made) >= time.Hour {
		done, err := l.begin(ctx)
		if err != nil {
			return nil, err
		}
		defer done()
		var body bytes.Buffer
		if err := dumpForms[format].write(l, ctx, n, &body); err != nil {
			return nil, err
		}
		d = &dump{version: n.version, made: now, body: body.Bytes(), digest: sha256.Sum256(body.Bytes())}
		l.dumps[format] = d
	}
	d.used = now
	return d, nil
}

// dumpLine is what a dump says of an entry, in both forms.
type dumpLine struct {
	IP         string         `json:"ip"` // an address, or a range in CIDR form
	Reputation cti.Reputation `json:"reputation"`
	Scenario   string         `json:"scenario"`
	Behaviors  []string       `json:"behaviors"`
	Techniques []string       `json:"mitre_techniques"`
	CVEs       []string       `json:"cves"`
	Threat     int            `json:"threat"` // 0 to 5
	Points     float32        `json:"points"` // of the network's judgement; more is more certain
	Expiration time.Time      `json:"expiration"`
	ASNum      *uint32        `json:"as_num"`
	Country    *string        `json:"country"`
}

func (l *Lookups) dumpLine(e muster.ListEntry) dumpLine {
	known, threat := l.vocabulary.About(e.Scenario, &l.cfg.Parameters)
	line := dumpLine{
		IP: e.Source.String(), Reputation: cti.Malicious, Scenario: e.Scenario, Behaviors: filled(known.Behaviours),
		Techniques: filled(known.Techniques), CVEs: filled(known.CVEs), Threat: threat, Points: e.Score, Expiration: e.Until.UTC(),
	}
	place := l.cfg.Place(e.Source.Addr())
	if place.ASN != 0 {
		line.ASNum = &place.ASN
	}
	if place.Country != "" {
		line.Country = &place.Country
	}
	return line
}

// filled makes null an empty list.
func filled(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

func (l *Lookups) writeLines(ctx context.Context, n *listing, w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	count := 0
	return l.each(n, func(e muster.ListEntry) error {
		if count++; count%1000 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		return enc.Encode(l.dumpLine(e))
	})
}

func (l *Lookups) writeZippedLines(ctx context.Context, n *listing, w io.Writer) error {
	zip := gzip.NewWriter(w)
	if err := l.writeLines(ctx, n, zip); err != nil {
		return err
	}
	return zip.Close()
}

// writeMMDB writes MaxMind's form. Expirations are rounded up to hours, so that
// entries share what is said of them, and ranges lose to addresses inside.
func (l *Lookups) writeMMDB(ctx context.Context, n *listing, w io.Writer) error {
	tree, err := mmdbwriter.New(mmdbwriter.Options{
		DatabaseType: "Muster-Community", Description: map[string]string{"en": "What the network of this Muster server has convicted"},
		IPVersion: 6, RecordSize: 28, BuildEpoch: l.cfg.Now().Unix(),
	})
	if err != nil {
		return fmt.Errorf("making a dump: %w", err)
	}
	words := func(list []string) mmdbtype.Slice {
		s := make(mmdbtype.Slice, len(list))
		for i := range list {
			s[i] = mmdbtype.String(list[i])
		}
		return s
	}
	insert := func(e muster.ListEntry) error {
		line := l.dumpLine(e)
		m := mmdbtype.Map{
			"reputation": mmdbtype.String(line.Reputation), "scenario": mmdbtype.String(line.Scenario), "behaviors": words(line.Behaviors),
			"mitre_techniques": words(line.Techniques), "cves": words(line.CVEs), "threat": mmdbtype.Uint16(line.Threat),
			"expiration": mmdbtype.Uint64(e.Until.Add(time.Hour - 1).Truncate(time.Hour).Unix()),
		}
		err := tree.Insert(ipNet(e.Source.Prefix()), m)
		if errors.As(err, new(*mmdbwriter.AliasedNetworkError)) || errors.As(err, new(*mmdbwriter.ReservedNetworkError)) {
			return nil // what the form has no place for: 6to4 and the like
		}
		if err != nil {
			return fmt.Errorf("putting %s into a dump: %w", e.Source, err)
		}
		return nil
	}
	for i := range n.ranges { // first, so that what is inside stands over them
		if e := n.ranges[i]; e.Until.After(l.cfg.Now()) && !l.forbidden(e.Source) {
			if err := insert(e); err != nil {
				return err
			}
		}
	}
	count := 0
	err = l.each(n, func(e muster.ListEntry) error {
		if count++; count%1000 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if !single(e.Source) {
			return nil
		}
		return insert(e)
	})
	if err != nil {
		return err
	}
	_, err = tree.WriteTo(w)
	return err
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
