package reach

import (
	"bufio"
	"crypto/md5" //nolint:gosec // MISP's hashes.csv has no other
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"

	"muster"
)

// A MISP feed is three kinds of files: manifest.json names the events, each event
// is a file named by its number, and hashes.csv has the MD5 of each value, by
// which MISP finds what feeds have in common. Here is one event: the community
// list, whose number never changes.

// mispEvent is what a manifest says of an event, and an event of itself.
type mispEvent struct {
	Info      string    `json:"info"`
	Orgc      mispOrgc  `json:"Orgc"`
	Analysis  string    `json:"analysis"`        // "2" = completed
	Threat    string    `json:"threat_level_id"` // "2" = medium
	Date      string    `json:"date"`
	Timestamp string    `json:"timestamp"` // Unix seconds
	Tag       []mispTag `json:"Tag"`
}

type mispOrgc struct {
	Name string `json:"name"`
	UUID string `json:"uuid"`
}

type mispTag struct {
	Name   string `json:"name"`
	Colour string `json:"colour"`
}

// mispAttribute is one entry of the list.
type mispAttribute struct {
	UUID         string `json:"uuid"`
	Type         string `json:"type"`
	Category     string `json:"category"`
	Value        string `json:"value"`
	ToIDs        bool   `json:"to_ids"`
	Comment      string `json:"comment"`
	Timestamp    string `json:"timestamp"`
	Distribution string `json:"distribution"` // "5" = as the event
}

// misp answers GET /misp/{file}.
func (l *Lookups) misp(w http.ResponseWriter, r *http.Request, key *lookupKey, file string) error {
	space := l.feedIDs().space
	id := uuid.NewSHA1(space, []byte("misp:"+muster.CommunityList)).String()
	if file != "manifest.json" && file != "hashes.csv" && file != id+".json" {
		return muster.Errorf(muster.NotFound, "expected /misp/manifest.json, /misp/hashes.csv or the event that the manifest names")
	}
	if err := l.spend(key, 1); err != nil {
		return err
	}
	done, err := l.begin(r.Context())
	if err != nil {
		return err
	}
	defer done()
	n := l.listed()
	event := mispEvent{
		Info: "Community blocklist of Muster at " + l.cfg.PublicURL, Orgc: mispOrgc{"Muster", uuid.NewSHA1(space, []byte("identity")).String()},
		Analysis: "2", Threat: "2", Date: n.at.UTC().Format(time.DateOnly), Timestamp: strconv.FormatInt(n.at.Unix(), 10),
		Tag: []mispTag{{"tlp:clear", "#ffffff"}, {"type:OSINT", "#004646"}},
	}
	h := w.Header()
	h.Set("Cache-Control", "private, no-cache")
	h.Set("ETag", fmt.Sprintf(`"%d-%d"`, n.version, n.at.Unix()))
	h.Set("Last-Modified", n.at.UTC().Format(http.TimeFormat))
	if unchanged(r, fmt.Sprintf("%d-%d", n.version, n.at.Unix()), n.at) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	if file == "manifest.json" {
		return l.writeJSON(w, r, "application/json", map[string]mispEvent{id: event})
	}
	h.Set("Content-Type", "application/json")
	if file == "hashes.csv" {
		h.Set("Content-Type", "text/csv; charset=utf-8")
	}
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return nil
	}
	out := bufio.NewWriterSize(w, 64<<10)
	if file == "hashes.csv" {
		err = l.mispHashes(n, id, out)
	} else {
		err = l.mispEvent(n, id, event, out)
	}
	if err == nil {
		err = out.Flush()
	}
	if err != nil { // half of it is on its way: the client must see that it is not whole
		panic(http.ErrAbortHandler)
	}
	return nil
}

func (l *Lookups) mispHashes(n *listing, id string, out io.Writer) error {
	return l.each(n, func(e muster.ListEntry) error {
		sum := md5.Sum([]byte(e.Source.String())) //nolint:gosec // MISP compares feeds by MD5
		_, err := fmt.Fprintf(out, "%s,%s\n", hex.EncodeToString(sum[:]), id)
		return err
	})
}

// mispEvent writes attribute by attribute, because a list can be long.
func (l *Lookups) mispEvent(n *listing, id string, event mispEvent, out io.Writer) error {
	head, err := json.Marshal(struct {
		UUID string `json:"uuid"`
		mispEvent
		Published        bool   `json:"published"`
		PublishTimestamp string `json:"publish_timestamp"`
		Distribution     string `json:"distribution"` // "3" = all
	}{id, event, true, event.Timestamp, "3"})
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(out, `{"Event":%s,"Attribute":[`, head[:len(head)-1]); err != nil {
		return err
	}
	space, comma := l.feedIDs().space, ""
	err = l.each(n, func(e muster.ListEntry) error {
		known, _ := l.vocabulary.About(e.Scenario, &l.cfg.Parameters)
		line, err := json.Marshal(mispAttribute{
			UUID: uuid.NewSHA1(space, []byte("misp:"+e.Source.String())).String(), Type: "ip-src", Category: "Network activity",
			Value: e.Source.String(), ToIDs: true, Comment: known.Label.Label, Timestamp: event.Timestamp, Distribution: "5",
		})
		if err == nil {
			_, err = fmt.Fprintf(out, "%s%s", comma, line)
		}
		comma = ","
		return err
	})
	if err == nil {
		_, err = io.WriteString(out, "]}}\n")
	}
	return err
}
