package simulate

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"muster/internal/crowd"
)

// Sweep is values of one parameter to try.
type Sweep struct {
	Parameter string // its path in crowd.Parameters, as Listing.Threshold
	Values    []string
}

// Setting is one value of a parameter.
type Setting struct {
	Parameter string `json:"parameter"`
	Value     string `json:"value"`
}

// ParseSweep reads PARAMETER=VALUE,VALUE…
func ParseSweep(text string) (Sweep, error) {
	parameter, values, ok := strings.Cut(text, "=")
	if !ok || values == "" {
		return Sweep{}, fmt.Errorf("sweep %q: expected PARAMETER=VALUE,VALUE…, as Listing.Threshold=4,5,6", text)
	}
	s := Sweep{Parameter: parameter, Values: strings.Split(values, ",")}
	_, err := combinations([]Sweep{s})
	return s, err
}

// setting is one combination of swept values.
type setting struct {
	values     []Setting
	parameters crowd.Parameters
}

// combinations returns every combination of the swept values; without sweeps
// the default alone.
func combinations(sweeps []Sweep) ([]setting, error) {
	all := []setting{{parameters: crowd.Default()}}
	for _, sweep := range sweeps {
		var next []setting
		for _, s := range all {
			for _, value := range sweep.Values {
				x := setting{values: append(slices.Clone(s.values), Setting{sweep.Parameter, value}), parameters: s.parameters}
				x.parameters.Trust.Caps = slices.Clone(s.parameters.Trust.Caps)
				if err := set(&x.parameters, sweep.Parameter, value); err != nil {
					return nil, err
				}
				next = append(next, x)
			}
		}
		all = next
	}
	return all, nil
}

// set sets the parameter at a path: fields by name, elements of lists by number.
func set(p *crowd.Parameters, path, value string) error {
	v := reflect.ValueOf(p).Elem()
	for step := range strings.SplitSeq(path, ".") {
		switch v.Kind() {
		case reflect.Struct:
			field := v.FieldByName(step)
			if !field.IsValid() {
				return fmt.Errorf("parameter %q: no field %q; expected one of %s", path, step, fields(v))
			}
			v = field
		case reflect.Slice, reflect.Array:
			i, err := strconv.Atoi(step)
			if err != nil || i < 0 || i >= v.Len() {
				return fmt.Errorf("parameter %q: no element %q; expected 0 to %d", path, step, v.Len()-1)
			}
			v = v.Index(i)
		default:
			return fmt.Errorf("parameter %q: nothing is below %s", path, v.Type())
		}
	}
	if v.Type() == reflect.TypeFor[time.Duration]() {
		d, err := time.ParseDuration(value)
		if err != nil {
			return fmt.Errorf("parameter %q is %q: expected a duration, as 72h", path, value)
		}
		v.SetInt(int64(d))
		return nil
	}
	switch v.Kind() {
	case reflect.Int:
		n, err := strconv.Atoi(value)
		if err != nil {
			return fmt.Errorf("parameter %q is %q: expected a whole number", path, value)
		}
		v.SetInt(int64(n))
	case reflect.Float64:
		f, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return fmt.Errorf("parameter %q is %q: expected a number", path, value)
		}
		v.SetFloat(f)
	case reflect.Bool:
		b, err := strconv.ParseBool(value)
		if err != nil {
			return fmt.Errorf("parameter %q is %q: expected true or false", path, value)
		}
		v.SetBool(b)
	case reflect.Struct:
		return fmt.Errorf("parameter %q is a group; expected one of its fields: %s", path, fields(v))
	default:
		return fmt.Errorf("parameter %q is a list; expected one of its elements, as %s.0", path, path)
	}
	return nil
}

func fields(v reflect.Value) string {
	var names []string
	for i := range v.NumField() {
		names = append(names, v.Type().Field(i).Name)
	}
	return strings.Join(names, ", ")
}
