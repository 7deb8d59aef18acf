package enrich

import (
	"net/netip"
	"runtime/debug"
	"sync"

	"github.com/oschwald/maxminddb-golang/v2"
	"github.com/oschwald/maxminddb-golang/v2/mmdbdata"
)

// Country tells in which country an address is, from a file in MaxMind DB form:
// GeoLite2-Country and -City, DB-IP Country Lite, IPinfo Lite, or one of the
// same fields. The file is mapped into memory, not read.
//
// All methods may be called concurrently. A nil *Country knows no address.
type Country struct{ file }

// countryFile is what the setting enrich.country names.
var countryFile = kind{
	setting:  "enrich.country",
	expected: "a database of countries in MMDB form (GeoLite2-Country, DB-IP Country Lite, IPinfo Lite)",
	fields:   "country.iso_code nor country_code",
	has: func(result maxminddb.Result) (bool, error) {
		var r place
		err := result.Decode(&r)
		return r.code() != "", err
	},
}

// OpenCountry maps the file at path and checks that it holds countries. Close it
// in the end. See Open for how it is updated.
func OpenCountry(path string) (*Country, error) {
	c := &Country{file{kind: &countryFile, path: path}}
	if err := c.open(); err != nil {
		return nil, err
	}
	return c, nil
}

// Of returns the country that addr is in, as ISO 3166 alpha-2 in upper case, or
// "" when the file does not tell. Where the file does not know in which country
// an address is used, it is that of whom it is registered to.
func (c *Country) Of(addr netip.Addr) (code string) {
	if c == nil {
		return ""
	}
	db := c.db.Load()
	if db == nil {
		return ""
	}
	defer catchFault(debug.SetPanicOnFault(true), func(error) { code = "" })

	r := places.Get().(*place)
	defer places.Put(r)
	*r = place{}
	if err := db.reader.Lookup(addr.Unmap()).Decode(r); err != nil {
		return ""
	}
	return r.code()
}

// places keeps Of from allocating: what Decode is given escapes.
var places = sync.Pool{New: func() any { return new(place) }}

// Reload is as that of ASN.
func (c *Country) Reload() (changed bool, err error) {
	if c == nil {
		return false, nil
	}
	return c.reload()
}

// Close lets go of the file; addresses are unknown from then on.
func (c *Country) Close() error {
	if c == nil {
		return nil
	}
	c.close()
	return nil
}

// place is what is read of one record of a database of countries.
type place struct{ country, registered string }

func (p *place) code() string {
	for _, code := range []string{p.country, p.registered} {
		if len(code) == 2 && code[0] >= 'A' && code[0] <= 'Z' && code[1] >= 'A' && code[1] <= 'Z' {
			return code
		}
	}
	return ""
}

// UnmarshalMaxMindDBCursor reads country.iso_code and registered_country.iso_code
// (MaxMind, DB-IP) or country_code (IPinfo), and passes over all others.
func (p *place) UnmarshalMaxMindDBCursor(at mmdbdata.Cursor) (mmdbdata.Cursor, error) {
	return eachField(at, func(key []byte, value mmdbdata.Cursor) (next mmdbdata.Cursor, err error) {
		switch string(key) {
		case "country":
			p.country, next, err = readCode(value, p.country)
		case "registered_country":
			p.registered, next, err = readCode(value, p.registered)
		case "country_code":
			p.country, next, err = readText(value)
		default:
			next, err = value.Skip()
		}
		return next, err
	})
}

// readCode reads the iso_code of a country, or a text that may be one: IPinfo's
// country is a name or a code, by the file. Anything else is what it was.
func readCode(value mmdbdata.Cursor, was string) (code string, next mmdbdata.Cursor, err error) {
	kind, err := value.Kind()
	if err != nil {
		return "", mmdbdata.Cursor{}, err
	}
	switch kind {
	case mmdbdata.KindMap:
		code = was
		next, err = eachField(value, func(key []byte, value mmdbdata.Cursor) (next mmdbdata.Cursor, err error) {
			if string(key) == "iso_code" {
				code, next, err = readText(value)
				return next, err
			}
			return value.Skip()
		})
		return code, next, err
	case mmdbdata.KindString:
		code, next, err = value.ReadString()
		if len(code) != 2 {
			code = was
		}
		return code, next, err
	default:
		next, err = value.Skip()
		return was, next, err
	}
}

// eachField calls read with every field of a map; it returns where the field
// ends.
func eachField(at mmdbdata.Cursor, read func(key []byte, value mmdbdata.Cursor) (mmdbdata.Cursor, error)) (mmdbdata.Cursor, error) {
	fields, err := at.Map()
	if err != nil {
		return mmdbdata.Cursor{}, err
	}
	var next mmdbdata.Cursor
	for {
		key, value, more := fields.Next(next)
		if !more {
			return fields.End()
		}
		if next, err = read(key, value); err != nil {
			return mmdbdata.Cursor{}, err
		}
	}
}
