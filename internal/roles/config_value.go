package roles

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"muster"
)

// Size is a number of bytes, written as 512KiB, 16MiB, 8GiB or a plain number.
type Size int64

// Units of Size.
const (
	KiB Size = 1 << (10 * (iota + 1))
	MiB
	GiB
	TiB
)

var sizeUnits = []struct {
	name string
	size Size
}{{"TiB", TiB}, {"GiB", GiB}, {"MiB", MiB}, {"KiB", KiB}, {"B", 1}, {"", 1}}

// ParseSize reads a Size. Decimal units (kB, MB) are refused, because half of
// their users mean the binary ones.
func ParseSize(s string) (Size, error) {
	for _, u := range sizeUnits {
		digits, ok := strings.CutSuffix(s, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
		if err != nil || n < 0 || n > math.MaxInt64/int64(u.size) {
			break
		}
		return Size(n) * u.size, nil
	}
	return 0, fmt.Errorf("expected a size like 512KiB, 16MiB or 8GiB, got %q", s)
}

// String returns the size in the largest unit that needs no fraction.
func (s Size) String() string {
	for _, u := range sizeUnits {
		if s >= u.size && s%u.size == 0 {
			return strconv.FormatInt(int64(s/u.size), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10) + "B"
}

var days = regexp.MustCompile(`^(\d+)d`)

// ParseDuration reads Go's durations ("1h30m") and days before them ("7d",
// "1d12h").
func ParseDuration(s string) (time.Duration, error) {
	var sum time.Duration
	rest := s
	if m := days.FindStringSubmatch(s); m != nil {
		n, err := strconv.ParseInt(m[1], 10, 64)
		if err != nil || n > int64(math.MaxInt64/(24*time.Hour)) {
			return 0, errDuration(s)
		}
		sum = time.Duration(n) * 24 * time.Hour
		rest = s[len(m[0]):]
	}
	if rest != "" {
		d, err := time.ParseDuration(rest)
		if err != nil || d < 0 || sum > math.MaxInt64-d {
			return 0, errDuration(s)
		}
		sum += d
	} else if s == "" {
		return 0, errDuration(s)
	}
	return sum, nil
}

func errDuration(s string) error {
	return fmt.Errorf("expected a duration with a unit, like 500ms, 30s, 12h or 7d, got %q", s)
}

// FormatDuration writes what ParseDuration reads, as short as it can.
func FormatDuration(d time.Duration) string {
	if d >= 48*time.Hour && d%(24*time.Hour) == 0 {
		return strconv.FormatInt(int64(d/(24*time.Hour)), 10) + "d"
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

// setting is one leaf of a Config.
type setting struct {
	path   string // as in limits.body
	value  reflect.Value
	field  reflect.StructField
	parent reflect.Type
}

// section is a struct of a Config that holds settings.
type section struct {
	path   string
	field  reflect.StructField
	parent reflect.Type
}

// settingsOf lists the settings of c in the order of their declaration.
func settingsOf(c *Config) (settings []setting, sections []section) {
	var walk func(prefix string, v reflect.Value)
	walk = func(prefix string, v reflect.Value) {
		for i := range v.NumField() {
			f := v.Type().Field(i)
			key, ok := f.Tag.Lookup("yaml")
			switch {
			case !ok: // the loader's own
			case f.Type.Kind() == reflect.Struct:
				sections = append(sections, section{prefix + key, f, v.Type()})
				walk(prefix+key+".", v.Field(i))
			default:
				settings = append(settings, setting{prefix + key, v.Field(i), f, v.Type()})
			}
		}
	}
	walk("", reflect.ValueOf(c).Elem())
	return settings, sections
}

// env is the name of the variable that overrides the setting.
func (s setting) env() string {
	return "MUSTER_" + strings.ToUpper(strings.ReplaceAll(s.path, ".", "__"))
}

// isList reports whether the setting takes several values.
func (s setting) isList() bool { return s.field.Type.Kind() == reflect.Slice }

// set reads text into the setting and checks its bounds. A list takes its
// values separated by commas.
func (s setting) set(text string) error {
	if s.isList() {
		var items []string
		for item := range strings.SplitSeq(text, ",") {
			if item = strings.TrimSpace(item); item != "" {
				items = append(items, item)
			}
		}
		return s.setList(items)
	}
	v, err := parseValue(s.field.Type, text)
	if err != nil {
		return err
	}
	if words := strings.Fields(s.field.Tag.Get("oneof")); len(words) > 0 && !slices.Contains(words, text) {
		return fmt.Errorf("expected one of %s, got %q", strings.Join(words, ", "), text)
	}
	if low, high, ok := s.bounds(); ok {
		lowest, err1 := parseValue(s.field.Type, low)
		highest, err2 := parseValue(s.field.Type, high)
		if err := errors.Join(err1, err2); err != nil {
			panic(fmt.Sprintf("config: range of %s: %v", s.path, err)) // the tag is wrong, any test finds it
		}
		if number(v) < number(lowest) || number(v) > number(highest) {
			return fmt.Errorf("expected %s to %s, got %s", low, high, text)
		}
	}
	s.value.Set(v)
	return nil
}

// setList replaces the values of a list.
func (s setting) setList(items []string) error {
	list := reflect.MakeSlice(s.field.Type, 0, len(items))
	for _, item := range items {
		v, err := parseValue(s.field.Type.Elem(), item)
		if err != nil {
			return err
		}
		list = reflect.Append(list, v)
	}
	s.value.Set(list)
	return nil
}

func (s setting) bounds() (low, high string, ok bool) {
	return strings.Cut(s.field.Tag.Get("range"), "..")
}

// text writes the value as set reads it, passwords hidden.
func (s setting) text() string {
	if s.field.Tag.Get("secret") == "url" {
		return hidePasswords(s.value.String())
	}
	return valueText(s.value)
}

// parseValue reads text as a value of type t, which is one of those that
// Config's fields have.
func parseValue(t reflect.Type, text string) (reflect.Value, error) {
	v := reflect.New(t).Elem()
	switch p := v.Addr().Interface().(type) {
	case *string:
		*p = text
	case *int:
		n, err := strconv.Atoi(text)
		if err != nil {
			return v, fmt.Errorf("expected a whole number, got %q", text)
		}
		*p = n
	case *bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return v, fmt.Errorf("expected true or false, got %q", text)
		}
		*p = b
	case *float64:
		f, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(f) {
			return v, fmt.Errorf("expected a number, got %q", text)
		}
		*p = f
	case *time.Duration:
		d, err := ParseDuration(text)
		if err != nil {
			return v, err
		}
		*p = d
	case *Size:
		n, err := ParseSize(text)
		if err != nil {
			return v, err
		}
		*p = n
	case *muster.Source:
		source, err := muster.ParseSource(text)
		if err != nil {
			return v, err
		}
		*p = source
	default:
		panic(fmt.Sprintf("config: no reader for values of type %s", t))
	}
	return v, nil
}

func valueText(v reflect.Value) string {
	switch x := v.Interface().(type) {
	case time.Duration:
		return FormatDuration(x)
	case fmt.Stringer:
		return x.String()
	case float64:
		return strconv.FormatFloat(x, 'f', -1, 64)
	default:
		return fmt.Sprint(x)
	}
}

func number(v reflect.Value) float64 {
	if v.CanInt() {
		return float64(v.Int())
	}
	return v.Float()
}

// urlPassword reaches to the last @: people forget to escape those in passwords.
var urlPassword = regexp.MustCompile(`(://[^\s/@:]*:)[^\s"]*@`)

// hidePasswords replaces the passwords of the URLs in s.
func hidePasswords(s string) string { return urlPassword.ReplaceAllString(s, "${1}***@") }
