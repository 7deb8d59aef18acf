package reach

import (
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/klauspost/compress/gzip"

	"muster"
	"muster/internal/wire"
)

// maxReport bounds a report; bouncers send some kilobytes.
const maxReport = 1 << 20

// usage answers POST …/v1/usage-metrics: 201, or bouncers say that their local
// API is an old one.
func (s *Service) usage(w http.ResponseWriter, r *http.Request, id string) error {
	who, err := s.bouncer(r, id)
	if err != nil {
		return err
	}
	body, err := readReport(w, r)
	if err != nil {
		return err
	}
	report, err := wire.DecodeUsageMetrics(body)
	if err != nil {
		return err
	}
	if len(report.RemediationComponents) != 1 || len(report.LogProcessors) > 0 {
		write(w, http.StatusBadRequest, "application/json", appendMessage("expected metrics of exactly one remediation component"))
		return nil
	}
	err = s.cfg.Store.PutIntegrationReport(r.Context(), muster.IntegrationReport{
		Integration: who.ID, Addr: s.cfg.Addr(r), At: s.cfg.Now(), Body: body,
	})
	if err != nil {
		return err
	}
	if s.cfg.Reported != nil {
		s.cfg.Reported(body)
	}
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(http.StatusCreated)
	return nil
}

// readReport reads a body, which the Go library compresses from 5 kB on.
func readReport(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	var from io.Reader = http.MaxBytesReader(w, r.Body, maxReport)
	unreadable := func(err error) error {
		var limit *http.MaxBytesError
		if errors.As(err, &limit) {
			return muster.Errorf(muster.TooLarge, "the report is larger than %d bytes", limit.Limit)
		}
		return &muster.Error{Code: muster.Invalid, Message: "the report could not be read to its end", Cause: err}
	}
	if strings.EqualFold(r.Header.Get("Content-Encoding"), "gzip") {
		zip, err := gzip.NewReader(from)
		if err != nil {
			return nil, unreadable(err)
		}
		from = zip
	}
	body, err := io.ReadAll(io.LimitReader(from, maxReport+1))
	if err != nil {
		return nil, unreadable(err)
	}
	if len(body) > maxReport {
		return nil, muster.Errorf(muster.TooLarge, "the report is larger than %d bytes", maxReport)
	}
	return body, nil
}
