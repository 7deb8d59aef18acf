package bundle

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"muster"
)

// ReadList reads and checks the entries of a list. What is reserved is left out
// and counted: it must never be on any list. The others end at m.ValidUntil at
// the latest.
func ReadList(fsys fs.FS, m *Manifest, l *List) (entries []muster.CustomEntry, reserved int, err error) {
	at, lines := m.MadeAt.UTC().Truncate(time.Microsecond), 0
	latest := m.ValidUntil.UTC().Truncate(time.Microsecond)
	err = eachLine(fsys, l.Path(), func(e Entry) error {
		if lines++; lines > l.Entries {
			return fmt.Errorf("expected %d entries, got more", l.Entries)
		}
		source, err := muster.ParseSource(e.Value)
		if err != nil {
			return err
		}
		if source.IsReserved() {
			reserved++
			return nil
		}
		if until := e.Until.UTC().Truncate(time.Microsecond); e.Until.IsZero() || until.After(latest) {
			e.Until = latest
		} else {
			e.Until = until
		}
		entries = append(entries, muster.CustomEntry{Source: source, Comment: comment(e.Comment), Until: e.Until, AddedAt: at, AddedBy: muster.ByBundle})
		return nil
	})
	if err == nil && lines != l.Entries {
		err = fmt.Errorf("expected %d entries, got %d", l.Entries, lines)
	}
	if err != nil {
		return nil, 0, muster.Errorf(muster.Invalid, "the list %s: %w", l.Name, err)
	}
	return entries, reserved, nil
}

// ReadAllowlist reads and checks the items of an allowlist.
func ReadAllowlist(fsys fs.FS, m *Manifest, l *Allowlist) (items []muster.AllowItem, err error) {
	err = eachLine(fsys, l.Path(), func(i AllowItem) error {
		if len(items) == l.Items {
			return fmt.Errorf("expected %d items, got more", l.Items)
		}
		item, err := muster.ParseAllowItem(i.Value)
		if err != nil {
			return err
		}
		item.Reason, item.CreatedAt, item.By = comment(i.Reason), m.MadeAt.UTC().Truncate(time.Microsecond), muster.ByBundle
		if !i.Until.IsZero() {
			item.ExpiresAt = i.Until.UTC().Truncate(time.Microsecond)
		}
		items = append(items, item)
		return nil
	})
	if err == nil && len(items) != l.Items {
		err = fmt.Errorf("expected %d items, got %d", l.Items, len(items))
	}
	if err != nil {
		return nil, muster.Errorf(muster.Invalid, "the allowlist %s: %w", l.Name, err)
	}
	return items, nil
}

// comment makes one line of up to 200 bytes.
func comment(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c < ' ' || c == 0x7f {
			b[i] = ' '
		}
	}
	if len(b) > 200 {
		b = b[:200]
	}
	return strings.ToValidUTF8(string(b), "") // no half of a character at the end
}

// eachLine calls fn with each line of a file of JSON lines.
func eachLine[T any](fsys fs.FS, name string, fn func(T) error) error {
	f, err := fsys.Open(name)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewScanner(f)
	lines.Buffer(make([]byte, 0, 4<<10), 64<<10)
	for n := 1; lines.Scan(); n++ {
		var v T
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			return fmt.Errorf("line %d: expected a JSON object: %w", n, err)
		}
		if err := fn(v); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
	return lines.Err()
}

// WriteLines writes values as JSON lines.
func WriteLines[T any](w io.Writer, values []T) error {
	b := bufio.NewWriter(w)
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	for _, v := range values {
		if err := enc.Encode(v); err != nil {
			return errors.Join(err, b.Flush())
		}
	}
	return b.Flush()
}
