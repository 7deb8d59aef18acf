package enrich

import (
	"strconv"

	"github.com/oschwald/maxminddb-golang/v2/mmdbdata"
)

// record is what is read of one record of a database.
type record struct {
	number uint32 // 0 when it has none, or none that an AS can have
	asName string // of a field that can only be the name of the AS
	name   string // of a field that is something else's beside an asName
}

func (r *record) organisation() string {
	if r.asName != "" {
		return r.asName
	}
	return r.name
}

// UnmarshalMaxMindDBCursor reads the fields autonomous_system_number and
// autonomous_system_organization (MaxMind, DB-IP), or asn and as_name or name
// (IPinfo), and passes over all others.
func (r *record) UnmarshalMaxMindDBCursor(at mmdbdata.Cursor) (mmdbdata.Cursor, error) {
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
		switch string(key) {
		case "autonomous_system_number", "asn":
			r.number, next, err = readNumber(value)
		case "autonomous_system_organization", "as_name":
			r.asName, next, err = readText(value)
		case "name":
			r.name, next, err = readText(value)
		default:
			next, err = value.Skip()
		}
		if err != nil {
			return mmdbdata.Cursor{}, err
		}
	}
}

// readNumber reads 1234, "1234" or "AS1234". Anything else is 0.
func readNumber(value mmdbdata.Cursor) (uint32, mmdbdata.Cursor, error) {
	kind, err := value.Kind()
	if err != nil {
		return 0, mmdbdata.Cursor{}, err
	}
	switch kind {
	case mmdbdata.KindUint16, mmdbdata.KindUint32, mmdbdata.KindUint64:
		n, next, err := value.ReadUint()
		if n > 1<<32-1 {
			n = 0
		}
		return uint32(n), next, err
	case mmdbdata.KindString:
		text, next, err := value.ReadString()
		if err != nil {
			return 0, mmdbdata.Cursor{}, err
		}
		return parseNumber(text), next, nil
	default:
		next, err := value.Skip()
		return 0, next, err
	}
}

func parseNumber(text string) uint32 {
	if len(text) > 2 && (text[:2] == "AS" || text[:2] == "as") {
		text = text[2:]
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return 0
	}
	return uint32(n)
}

// readText reads a string. Anything else is "".
func readText(value mmdbdata.Cursor) (string, mmdbdata.Cursor, error) {
	kind, err := value.Kind()
	if err != nil {
		return "", mmdbdata.Cursor{}, err
	}
	if kind != mmdbdata.KindString {
		next, err := value.Skip()
		return "", next, err
	}
	return value.ReadString()
}
