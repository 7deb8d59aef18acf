package reach

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"muster"
	"muster/internal/ops"
)

// TAXII 2.1 (OASIS, 10 June 2021) with STIX 2.1. There is one collection, the
// community list. It follows the judge's changelog: an indicator's date_added is
// when its verdict changed last, so that whoever asks for what was added after
// the last time hears of new listings, of longer ones, and of ended ones, which
// are revoked.
const (
	taxiiType = "application/taxii+json;version=2.1"
	stixType  = "application/stix+json;version=2.1"
	taxiiRoot = "root"

	taxiiLimit = 2000 // most objects of a page
)

// taxii returns what answers a path below /taxii2/, and how metrics call it; nil
// for nothing.
func (l *Lookups) taxii(path string) (route string, serve func(http.ResponseWriter, *http.Request, *lookupKey) error) {
	ids := l.feedIDs()
	parts := strings.Split(path, "/")
	if path == "" {
		return "GET /taxii2/", func(w http.ResponseWriter, r *http.Request, k *lookupKey) error {
			return l.taxiiAnswer(w, r, k, map[string]any{
				"title": "Muster", "description": "What the network of this server has convicted",
				"default": l.cfg.PublicURL + "taxii2/" + taxiiRoot + "/", "api_roots": []string{l.cfg.PublicURL + "taxii2/" + taxiiRoot + "/"},
			})
		}
	}
	if parts[0] != taxiiRoot {
		return "", nil
	}
	collection := map[string]any{
		"id": ids.collection, "title": "Community blocklist", "description": "Addresses and ranges that the network of this server has convicted",
		"alias": muster.CommunityList, "can_read": true, "can_write": false, "media_types": []string{stixType},
	}
	known := len(parts) >= 3 && parts[1] == "collections" && (parts[2] == ids.collection || parts[2] == muster.CommunityList)
	switch {
	case len(parts) == 1:
		return "GET /taxii2/root/", func(w http.ResponseWriter, r *http.Request, k *lookupKey) error {
			return l.taxiiAnswer(w, r, k, map[string]any{"title": "Muster", "versions": []string{taxiiType}, "max_content_length": 0})
		}
	case len(parts) == 2 && parts[1] == "collections":
		return "GET /taxii2/root/collections/", func(w http.ResponseWriter, r *http.Request, k *lookupKey) error {
			return l.taxiiAnswer(w, r, k, map[string]any{"collections": []any{collection}})
		}
	case !known:
		return "", nil
	case len(parts) == 3:
		return "GET /taxii2/root/collections/{id}/", func(w http.ResponseWriter, r *http.Request, k *lookupKey) error {
			return l.taxiiAnswer(w, r, k, collection)
		}
	case len(parts) == 4 && (parts[3] == "objects" || parts[3] == "manifest"):
		return "GET /taxii2/root/collections/{id}/" + parts[3] + "/", func(w http.ResponseWriter, r *http.Request, k *lookupKey) error {
			return l.taxiiObjects(w, r, k, parts[3], "")
		}
	case len(parts) == 5 && parts[3] == "objects":
		return "GET /taxii2/root/collections/{id}/objects/{object}/", func(w http.ResponseWriter, r *http.Request, k *lookupKey) error {
			return l.taxiiObjects(w, r, k, "objects", parts[4])
		}
	case len(parts) == 6 && parts[3] == "objects" && parts[5] == "versions":
		return "GET /taxii2/root/collections/{id}/objects/{object}/versions/", func(w http.ResponseWriter, r *http.Request, k *lookupKey) error {
			return l.taxiiObjects(w, r, k, "versions", parts[4])
		}
	}
	return "", nil
}

// taxiiAnswer answers what is the same for everybody.
func (l *Lookups) taxiiAnswer(w http.ResponseWriter, r *http.Request, key *lookupKey, v any) error {
	if err := acceptsTAXII(r); err != nil {
		return err
	}
	if err := l.spend(key, 1); err != nil {
		return err
	}
	return l.writeJSON(w, r, taxiiType, v)
}

// notAcceptable is the error of a client that wants another form.
type notAcceptable struct{ error }

func (e notAcceptable) Unwrap() error { return e.error }

// acceptsTAXII refuses clients that want another version.
func acceptsTAXII(r *http.Request) error {
	accept := r.Header.Values("Accept")
	if len(accept) == 0 {
		return nil
	}
	for _, one := range strings.Split(strings.Join(accept, ","), ",") {
		kind := strings.ReplaceAll(strings.ToLower(strings.TrimSpace(one)), " ", "")
		kind, _, _ = strings.Cut(kind, ";q=")
		switch kind {
		case "*/*", "application/*", "application/json", "application/taxii+json", taxiiType:
			return nil
		}
	}
	return notAcceptable{muster.Errorf(muster.Invalid, "expected the client to accept %s", taxiiType)}
}

// taxiiFail answers an error as TAXII has it.
func (l *Lookups) taxiiFail(w http.ResponseWriter, r *http.Request, err error) {
	ops.RecordOf(r.Context()).Err = err
	status, code, message := statusOf(w, err)
	if as, ok := errors.AsType[notAcceptable](err); ok && as.error != nil {
		status = http.StatusNotAcceptable
	}
	if status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Basic realm="lookup key as password"`)
	}
	body, _ := json.Marshal(map[string]any{"title": code, "description": message, "http_status": fmt.Sprint(status)}) // texts can be written
	l.write(w, r, status, taxiiType, body)
}

// feedIDs are numbers that feeds give to what is theirs. They depend on nothing
// but the server's address.
type feedIDs struct {
	space      uuid.UUID
	collection string
	identity   string
}

func (l *Lookups) feedIDs() feedIDs {
	space := uuid.NewSHA1(uuid.NameSpaceURL, []byte(l.cfg.PublicURL))
	return feedIDs{space, uuid.NewSHA1(space, []byte("collection:"+muster.CommunityList)).String(), "identity--" + uuid.NewSHA1(space, []byte("identity")).String()}
}

// stixObject is an identity or an indicator of STIX 2.1.
type stixObject struct {
	Type           string   `json:"type"`
	SpecVersion    string   `json:"spec_version"`
	ID             string   `json:"id"`
	CreatedBy      string   `json:"created_by_ref,omitempty"`
	Created        stixTime `json:"created"`
	Modified       stixTime `json:"modified"`
	Revoked        bool     `json:"revoked,omitempty"`
	Name           string   `json:"name"`
	Description    string   `json:"description,omitempty"`
	IdentityClass  string   `json:"identity_class,omitempty"`
	IndicatorTypes []string `json:"indicator_types,omitempty"`
	Pattern        string   `json:"pattern,omitempty"`
	PatternType    string   `json:"pattern_type,omitempty"`
	ValidFrom      stixTime `json:"valid_from,omitzero"`
	ValidUntil     stixTime `json:"valid_until,omitzero"`
	Labels         []string `json:"labels,omitempty"`
	Confidence     int      `json:"confidence,omitempty"`

	added time.Time // when the collection got it
}

// stixTime is written with microseconds, so that versions of one object differ.
type stixTime time.Time

func (t stixTime) IsZero() bool { return time.Time(t).IsZero() }

func (t stixTime) MarshalJSON() ([]byte, error) { return json.Marshal(stampOf(time.Time(t))) }

func stampOf(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000000Z") }

// identityMade is when this program's identity was: it never changes.
var identityMade = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func (l *Lookups) identity() stixObject {
	return stixObject{
		Type: "identity", SpecVersion: "2.1", ID: l.feedIDs().identity, Created: stixTime(identityMade), Modified: stixTime(identityMade),
		Name: "Muster at " + l.cfg.PublicURL, IdentityClass: "system", added: identityMade,
	}
}

// indicator returns a verdict as STIX has it. One listing of a source is one
// object, whatever becomes of it.
func (l *Lookups) indicator(ids feedIDs, v *muster.Verdict) stixObject {
	family, is := "ipv4-addr", "="
	if v.Source.Addr().Is6() {
		family = "ipv6-addr"
	}
	if v.Source.IsRange() {
		is = "ISSUBSET"
	}
	known, _ := l.vocabulary.About(v.Scenario, &l.cfg.Parameters)
	o := stixObject{
		Type: "indicator", SpecVersion: "2.1", CreatedBy: ids.identity,
		ID:      "indicator--" + uuid.NewSHA1(ids.space, fmt.Appendf(nil, "listing:%s:%d", v.Source, v.Since.Unix())).String(),
		Created: stixTime(v.Since), Modified: stixTime(later(v.Changed, v.Since)), Revoked: !v.Listed || !v.Until.After(l.cfg.Now()) || v.Remedy == muster.RemedyCaptcha || l.forbidden(v.Source),
		Name: v.Source.String(), Description: cmp.Or(known.Label.Label, v.Scenario), IndicatorTypes: []string{"malicious-activity"},
		Pattern: fmt.Sprintf("[%s:value %s '%s']", family, is, v.Source), PatternType: "stix",
		ValidFrom: stixTime(v.Since), ValidUntil: stixTime(later(v.Until, v.Since.Add(time.Second))),
		added: v.Changed,
	}
	if v.Scenario != "" {
		o.Labels = append([]string{v.Scenario}, known.Behaviours...)
	}
	if r := v.Reasons; r.Threshold > 0 {
		o.Confidence = min(99, max(1, int(60*r.Support/r.Threshold)))
	}
	return o
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// taxiiCursor is behind what a page begins: a source, of what changed at a
// moment. Those of one moment are in the order of their sources, because there
// may be more of them than a page holds.
type taxiiCursor struct {
	after  time.Time
	moment time.Time
	source muster.Source
}

func (c taxiiCursor) String() string {
	return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%d %s", c.moment.UnixMicro(), c.source))
}

func parseTaxiiCursor(text string) (c taxiiCursor, err error) {
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err == nil {
		micros, source, _ := strings.Cut(string(raw), " ")
		var n int64
		if n, err = strconv.ParseInt(micros, 10, 64); err == nil {
			c.moment = time.UnixMicro(n).UTC()
			c.after = c.moment.Add(-time.Microsecond)
			c.source, err = muster.ParseSource(source)
		}
	}
	if err != nil {
		return c, muster.Errorf(muster.Invalid, "next: expected what the page before gave")
	}
	return c, nil
}

// passed reports whether a page before has given v.
func (c taxiiCursor) passed(v *muster.Verdict) bool {
	return v.Changed.Equal(c.moment) && v.Source.Compare(c.source) <= 0
}

// taxiiObjects answers a page of objects or of their manifest, or one object.
func (l *Lookups) taxiiObjects(w http.ResponseWriter, r *http.Request, key *lookupKey, what, id string) error {
	if err := acceptsTAXII(r); err != nil {
		return err
	}
	q := r.URL.Query()
	limit, err := number(q, "limit", taxiiLimit, 1, 1<<31-1)
	if err != nil {
		return err
	}
	limit = min(limit, taxiiLimit)
	var from taxiiCursor
	if text := q.Get("added_after"); text != "" {
		if from.after, err = time.Parse(time.RFC3339Nano, text); err != nil {
			return muster.Errorf(muster.Invalid, "added_after: expected a time like 2026-11-20T12:00:00.000000Z, got %q", clipped(text))
		}
	}
	if text := q.Get("next"); text != "" {
		if from, err = parseTaxiiCursor(text); err != nil {
			return err
		}
	}
	keep, err := taxiiFilter(q, id)
	if err != nil {
		return err
	}
	if err := l.spend(key, 1); err != nil {
		return err
	}
	done, err := l.begin(r.Context())
	if err != nil {
		return err
	}
	defer done()
	// Whoever reads everything is not told of what has ended, save for one object
	// that it asks for.
	ended := q.Get("added_after") != "" || id != ""
	objects, next, err := l.taxiiPage(r, from, limit, func(o *stixObject) bool { return (ended || !o.Revoked) && keep(o) })
	if err != nil {
		return err
	}
	if id != "" && len(objects) == 0 {
		return muster.Errorf(muster.NotFound, "there is no object %q in this collection", clipped(id))
	}
	answer := map[string]any{}
	if next != nil {
		answer["more"], answer["next"] = true, next.String()
	}
	if len(objects) > 0 {
		w.Header().Set("X-TAXII-Date-Added-First", stampOf(objects[0].added))
		w.Header().Set("X-TAXII-Date-Added-Last", stampOf(objects[len(objects)-1].added))
		switch what {
		case "objects":
			answer["objects"] = objects
		case "versions":
			versions := []string{}
			for i := range objects {
				versions = append(versions, stampOf(time.Time(objects[i].Modified)))
			}
			answer["versions"] = versions
		default:
			records := []map[string]string{}
			for i := range objects {
				o := &objects[i]
				records = append(records, map[string]string{
					"id": o.ID, "date_added": stampOf(o.added), "version": stampOf(time.Time(o.Modified)), "media_type": stixType,
				})
			}
			answer["objects"] = records
		}
	}
	return l.writeJSON(w, r, taxiiType, answer)
}

// taxiiFilter reads match[id], match[type], match[version] and
// match[spec_version].
func taxiiFilter(q url.Values, id string) (func(*stixObject) bool, error) {
	list := func(name string) []string {
		if text := q.Get("match[" + name + "]"); text != "" {
			return strings.Split(text, ",")
		}
		return nil
	}
	ids, types, specs, versions := list("id"), list("type"), list("spec_version"), list("version")
	if id != "" {
		ids = []string{id}
	}
	for _, v := range versions {
		if _, err := time.Parse(time.RFC3339Nano, v); err != nil && v != "last" && v != "first" && v != "all" {
			return nil, muster.Errorf(muster.Invalid, "match[version]: expected last, first, all or a time, got %q", clipped(v))
		}
	}
	return func(o *stixObject) bool {
		if ids != nil && !slices.Contains(ids, o.ID) || types != nil && !slices.Contains(types, o.Type) || specs != nil && !slices.Contains(specs, o.SpecVersion) {
			return false
		}
		if versions == nil {
			return true
		}
		return slices.ContainsFunc(versions, func(v string) bool { // the last is the only one that is kept
			at, err := time.Parse(time.RFC3339Nano, v)
			return err != nil || at.Equal(time.Time(o.Modified))
		})
	}, nil
}

// taxiiPage returns up to limit objects, and where the next page begins, nil for
// nowhere.
func (l *Lookups) taxiiPage(r *http.Request, from taxiiCursor, limit int, keep func(*stixObject) bool) (objects []stixObject, next *taxiiCursor, err error) {
	if identity := l.identity(); from.moment.IsZero() && from.after.Before(identity.added) && keep(&identity) {
		objects = append(objects, identity)
	}
	ids := l.feedIDs()
	last := from
	err = l.eachChange(r.Context(), from.after, func(v *muster.Verdict) bool {
		if v.Source.IsReserved() || v.Since.IsZero() || from.passed(v) {
			return true
		}
		o := l.indicator(ids, v)
		if !keep(&o) {
			return true
		}
		if len(objects) == limit {
			if last.moment.IsZero() { // only the identity was given
				last = taxiiCursor{moment: v.Changed.Add(-time.Microsecond), source: v.Source}
			}
			next = &last
			return false
		}
		objects, last = append(objects, o), taxiiCursor{moment: v.Changed, source: v.Source}
		return true
	})
	return objects, next, err
}
