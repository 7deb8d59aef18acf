package enrich

import (
	"net/netip"
	"runtime/debug"

	"github.com/oschwald/maxminddb-golang/v2"

	"muster"
)

// City tells where an address is, from a file in MaxMind DB form: GeoLite2-City,
// DB-IP City Lite, or one of the same fields; of a file of countries it tells the
// country. The file is mapped into memory, not read.
//
// All methods may be called concurrently. A nil *City knows no address.
type City struct{ file }

// cityFile is what the setting enrich.city names.
var cityFile = kind{
	setting:  "enrich.city",
	expected: "a database of cities in MMDB form (GeoLite2-City, DB-IP City Lite)",
	fields:   "city nor country.iso_code",
	has: func(result maxminddb.Result) (bool, error) {
		var r cityRecord
		err := result.Decode(&r)
		return r.City.Names.En != "" || r.Country.Code != "", err
	},
}

// cityRecord is what is read of a record; names are the English ones.
type cityRecord struct {
	City    cityName `maxminddb:"city"`
	Country struct {
		Code  string      `maxminddb:"iso_code"`
		Names englishName `maxminddb:"names"`
	} `maxminddb:"country"`
	Registered struct {
		Code  string      `maxminddb:"iso_code"`
		Names englishName `maxminddb:"names"`
	} `maxminddb:"registered_country"`
	Subdivisions []cityName `maxminddb:"subdivisions"`
	Location     struct {
		Latitude  *float64 `maxminddb:"latitude"`
		Longitude *float64 `maxminddb:"longitude"`
		TimeZone  string   `maxminddb:"time_zone"`
	} `maxminddb:"location"`
	Traits struct {
		ISP          string `maxminddb:"isp"`
		Organisation string `maxminddb:"organization"`
	} `maxminddb:"traits"`
}

type cityName struct {
	Names englishName `maxminddb:"names"`
}

type englishName struct {
	En string `maxminddb:"en"`
}

// OpenCity maps the file at path and checks that it holds cities. Close it in the
// end. See Open for how it is updated.
func OpenCity(path string) (*City, error) {
	c := &City{file{kind: &cityFile, path: path}}
	if err := c.open(); err != nil {
		return nil, err
	}
	return c, nil
}

// Of returns what the file says about addr. Texts are those of the file,
// unchanged: show them as foreign text.
func (c *City) Of(addr netip.Addr) (geo muster.SieveGeo) {
	if c == nil {
		return muster.SieveGeo{}
	}
	db := c.db.Load()
	if db == nil {
		return muster.SieveGeo{}
	}
	defer catchFault(debug.SetPanicOnFault(true), func(error) { geo = muster.SieveGeo{} })

	var r cityRecord
	if err := db.reader.Lookup(addr.Unmap()).Decode(&r); err != nil {
		return muster.SieveGeo{}
	}
	country := place{country: r.Country.Code, registered: r.Registered.Code}
	geo = muster.SieveGeo{
		CountryCode: country.code(), City: r.City.Names.En, Timezone: r.Location.TimeZone,
		ISP: r.Traits.ISP, Organisation: r.Traits.Organisation,
	}
	switch geo.CountryCode {
	case "":
	case r.Country.Code:
		geo.CountryName = r.Country.Names.En
	default:
		geo.CountryName = r.Registered.Names.En
	}
	if len(r.Subdivisions) > 0 {
		geo.Region = r.Subdivisions[0].Names.En
	}
	if r.Location.Latitude != nil && r.Location.Longitude != nil {
		geo.Latitude, geo.Longitude = r.Location.Latitude, r.Location.Longitude
	}
	return geo
}

// Reload is as that of ASN.
func (c *City) Reload() (changed bool, err error) {
	if c == nil {
		return false, nil
	}
	return c.reload()
}

// Close lets go of the file; addresses are unknown from then on.
func (c *City) Close() error {
	if c == nil {
		return nil
	}
	c.close()
	return nil
}

// Places puts together what several files say about an address; those that are
// nil say nothing.
type Places struct {
	City    *City
	Country *Country // counts where City does not tell the country
	ASN     *ASN
}

// Of returns what the files say about addr.
func (p Places) Of(addr netip.Addr) muster.SieveGeo {
	geo := p.City.Of(addr)
	if geo.CountryCode == "" {
		geo.CountryCode = p.Country.Of(addr)
	}
	geo.ASN, geo.ASName = p.ASN.Of(addr)
	return geo
}
