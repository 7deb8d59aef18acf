package store

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	"muster"
	"muster/internal/ratelimit"
)

// micros is how times are stored.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// The types below scan stored forms into the fields that they are made from by
// conversion of the pointer: rows.Scan((*timeColumn)(&m.RegisteredAt)).

// timeColumn scans micros.
type timeColumn time.Time

func (c *timeColumn) Scan(src any) error {
	us, ok := src.(int64)
	if !ok {
		return fmt.Errorf("expected a time as an integer, got %T", src)
	}
	*c = timeColumn{}
	if us != 0 {
		*c = timeColumn(time.UnixMicro(us).UTC())
	}
	return nil
}

// sourceColumn scans sourceKey.
type sourceColumn muster.Source

func (c *sourceColumn) Scan(src any) error {
	b, ok := src.([]byte)
	if !ok {
		return fmt.Errorf("expected a source as bytes, got %T", src)
	}
	source, err := muster.SourceFromBinary(b)
	*c = sourceColumn(source)
	return err
}

// prefixColumn scans prefixKey.
type prefixColumn netip.Prefix

func (c *prefixColumn) Scan(src any) error {
	var source muster.Source
	err := (*sourceColumn)(&source).Scan(src)
	*c = prefixColumn(source.Prefix())
	return err
}

// listColumn scans jsonList; an empty list becomes nil.
type listColumn []string

func (c *listColumn) Scan(src any) error {
	*c = nil
	if src == "[]" {
		return nil
	}
	return scanJSON(src, (*[]string)(c))
}

// reasonsColumn scans the JSON form.
type reasonsColumn muster.Reasons

func (c *reasonsColumn) Scan(src any) error { return scanJSON(src, (*muster.Reasons)(c)) }

// limitColumn scans the JSON form.
type limitColumn ratelimit.Limit

func (c *limitColumn) Scan(src any) error { return scanJSON(src, (*ratelimit.Limit)(c)) }

// overrideColumn scans the JSON form.
type overrideColumn ratelimit.Override

func (c *overrideColumn) Scan(src any) error { return scanJSON(src, (*ratelimit.Override)(c)) }

func scanJSON(src, into any) error {
	text, ok := src.(string)
	if !ok {
		return fmt.Errorf("expected a JSON text, got %T", src)
	}
	return json.Unmarshal([]byte(text), into)
}

// jsonList is how lists of strings are stored; nil and empty are the same.
func jsonList(list []string) string {
	if len(list) == 0 {
		return "[]"
	}
	b, err := json.Marshal(list)
	if err != nil {
		panic(err) // strings always have a JSON form
	}
	return string(b)
}

// blob is how byte strings are stored: never NULL, which nil would be.
func blob(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// sourceKey is how a source is stored.
func sourceKey(s muster.Source) []byte {
	return s.AppendBinary(make([]byte, 0, muster.SourceSize))
}

// prefixKey is how a range of addresses is stored: masked, v4-mapped unmapped.
func prefixKey(p netip.Prefix) []byte { return sourceKey(muster.SourceFromPrefix(p)) }
