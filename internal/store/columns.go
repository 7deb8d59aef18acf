package store

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"muster"
)

// micros is how times are stored.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// column scans a stored form into a field; made by the functions below, for
// use as an argument of Scan.
type column func(src any) error

func (c column) Scan(src any) error { return c(src) }

// asTime scans micros.
func asTime(t *time.Time) sql.Scanner {
	return column(func(src any) error {
		us, ok := src.(int64)
		if !ok {
			return fmt.Errorf("expected a time as an integer, got %T", src)
		}
		*t = time.Time{}
		if us != 0 {
			*t = time.UnixMicro(us).UTC()
		}
		return nil
	})
}

// asSource scans the 17 bytes of a source.
func asSource(s *muster.Source) sql.Scanner {
	return column(func(src any) error {
		b, ok := src.([]byte)
		if !ok {
			return fmt.Errorf("expected a source as bytes, got %T", src)
		}
		var err error
		*s, err = muster.SourceFromBinary(b)
		return err
	})
}

// asJSON scans a JSON text into v.
func asJSON(v any) sql.Scanner {
	return column(func(src any) error {
		switch text := src.(type) {
		case string:
			return json.Unmarshal([]byte(text), v)
		case []byte:
			return json.Unmarshal(text, v)
		}
		return fmt.Errorf("expected a JSON text, got %T", src)
	})
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

// asList scans what jsonList made; an empty list becomes nil.
func asList(list *[]string) sql.Scanner {
	return column(func(src any) error {
		*list = nil
		if src == "[]" {
			return nil
		}
		return asJSON(list).Scan(src)
	})
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
