package replay

import (
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"muster/internal/crowd"
)

// Setting is one parameter of the judge that is not the default.
type Setting struct {
	Parameter string `json:"parameter"` // its path in crowd.Parameters, as Listing.Threshold
	Value     string `json:"value"`
}

// ParseSetting reads PARAMETER=VALUE, as Listing.Threshold=4.
func ParseSetting(text string) (Setting, error) {
	parameter, value, ok := strings.Cut(text, "=")
	if !ok || parameter == "" || value == "" {
		return Setting{}, fmt.Errorf("expected PARAMETER=VALUE, as Listing.Threshold=4, got %q", text)
	}
	return Setting{strings.TrimSpace(parameter), strings.TrimSpace(value)}, nil
}

// ReadSettings reads parameters from YAML, nested or not, in the order of their
// names:
//
//	Listing:
//	  Threshold: 4
//	  Expiry: 48h
//	Trust.Caps.0.Weight: 1
func ReadSettings(r io.Reader) (all []Setting, err error) {
	var tree map[string]any
	if err := yaml.NewDecoder(r, yaml.Strict()).Decode(&tree); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("expected parameters in YAML: %w", err)
	}
	var walk func(path string, node any)
	walk = func(path string, node any) {
		switch node := node.(type) {
		case map[string]any:
			for name, below := range node {
				walk(path+"."+name, below)
			}
		case []any:
			for i, below := range node {
				walk(path+"."+strconv.Itoa(i), below)
			}
		default:
			all = append(all, Setting{strings.TrimPrefix(path, "."), fmt.Sprint(node)})
		}
	}
	walk("", tree)
	slices.SortFunc(all, func(a, b Setting) int { return strings.Compare(a.Parameter, b.Parameter) })
	return all, nil
}

// Parameters returns the defaults with some of them set otherwise, later ones
// over earlier ones.
func Parameters(settings []Setting) (crowd.Parameters, error) {
	p := crowd.Default()
	for _, s := range settings {
		if err := set(reflect.ValueOf(&p).Elem(), s.Parameter, s.Value); err != nil {
			return p, fmt.Errorf("parameter %s: %w", s.Parameter, err)
		}
	}
	return p, nil
}

// set sets what is at a path below v: fields by name, elements of lists by
// number.
func set(v reflect.Value, path, value string) error {
	step, below, deeper := strings.Cut(path, ".")
	at, err := child(v, step)
	if err != nil {
		return err
	}
	if deeper {
		return set(at, below, value)
	}
	if at.Type() == reflect.TypeFor[time.Duration]() {
		d, err := time.ParseDuration(value)
		if err != nil {
			return fmt.Errorf("expected a duration, as 72h, got %q", value)
		}
		at.SetInt(int64(d))
		return nil
	}
	switch at.Kind() {
	case reflect.Int:
		n, err := strconv.Atoi(value)
		if err != nil {
			return fmt.Errorf("expected a whole number, got %q", value)
		}
		at.SetInt(int64(n))
	case reflect.Float64:
		f, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return fmt.Errorf("expected a number, got %q", value)
		}
		at.SetFloat(f)
	case reflect.Bool:
		b, err := strconv.ParseBool(value)
		if err != nil {
			return fmt.Errorf("expected true or false, got %q", value)
		}
		at.SetBool(b)
	default:
		_, err := child(at, "") // which says what is below
		return err
	}
	return nil
}

// child returns a field or an element of v.
func child(v reflect.Value, name string) (reflect.Value, error) {
	switch v.Kind() {
	case reflect.Struct:
		if field := v.FieldByName(name); field.IsValid() {
			return field, nil
		}
		var names []string
		for i := range v.NumField() {
			names = append(names, v.Type().Field(i).Name)
		}
		return v, fmt.Errorf("expected one of %s, got %q", strings.Join(names, ", "), name)
	case reflect.Slice, reflect.Array:
		if i, err := strconv.Atoi(name); err == nil && i >= 0 && i < v.Len() {
			return v.Index(i), nil
		}
		return v, fmt.Errorf("expected a number from 0 to %d, got %q", v.Len()-1, name)
	default:
		return v, fmt.Errorf("expected nothing below a %s, got %q", v.Type(), name)
	}
}
