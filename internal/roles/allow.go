package roles

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"muster"
	"muster/internal/allow"
	"muster/internal/enroll"
	"muster/internal/ops"
	"muster/internal/store"
)

// buildAllow makes the allowlists and reads them, since what nobody may ever be
// sent is in them.
func (n *node) buildAllow(ctx context.Context) error {
	clouds, err := parseClouds(n.cfg.Allowlists.Clouds)
	if err != nil {
		return err
	}
	n.allow = allow.New(allow.Config{
		Store: n.db, Machines: allowMachines{n.machines, n.db}, Orders: n.orders, Ranges: allowRanges{n},
		Resolver: hostResolver{net.DefaultResolver}, Fetcher: newRangeFetcher(n.cfg.Allowlists.PrivateURLs),
		Clouds: clouds, PublicURL: n.public, Changed: n.allowedChanged, Ring: func() { n.bells.ring(bellAllow, "") },
		MaxRanges: n.cfg.Allowlists.MaxRanges, HostKeep: n.cfg.Allowlists.HostKeep, OrderKeep: n.cfg.Orders.Keep,
		Now: n.now, Logger: n.log, Registerer: n.registry,
	})
	n.lists.allowed, n.lists.allowlists = n.allow.For, n.allow.Links
	if err := n.allow.Load(ctx); err != nil {
		return fmt.Errorf("loading the allowlists: %w", err)
	}
	return nil
}

// allowedChanged has everybody who holds lists look again.
func (n *node) allowedChanged(central bool) {
	if central {
		n.bells.ring(bellTruth, "") // which everything is judged and published by
		return
	}
	n.publisher.Invalidate()
}

// centralChanged takes in what was written past the service: to the
// installation's list, or operators' verdicts.
func (n *node) centralChanged(ctx context.Context) error {
	if err := n.allow.Reload(ctx); err != nil {
		return err
	}
	n.bells.ring(bellAllow, "")
	n.bells.ring(bellTruth, "")
	return nil
}

// reloadAllow answers bellAllow.
func (n *node) reloadAllow(ctx context.Context, _ string, _ bool) {
	if err := n.allow.Reload(ctx); err != nil && ctx.Err() == nil {
		n.log.Error("the allowlists could not be read: those before stay in force until they change again", ops.KeyError, err)
	}
}

// allowMachineChanged tells the allowlists that a machine changed, or that
// nobody knows which did.
func (n *node) allowMachineChanged(ctx context.Context, id string, all bool) {
	change := n.allow.MachinesChanged
	if !all {
		if id == "" {
			return
		}
		change = func(ctx context.Context) error { return n.allow.MachineChanged(ctx, id) }
	}
	if err := change(ctx); err != nil && ctx.Err() == nil {
		n.log.Error("a machine that has changed could not be told to let go of allowlists; they stay on it until it changes again", ops.KeyMachine, id, ops.KeyError, err)
	}
}

// serveAllowlist answers signed links.
func (n *node) serveAllowlist(w http.ResponseWriter, r *http.Request) {
	ops.RecordOf(r.Context()).Route = r.Method + " /allowlists/{id}"
	n.allow.ServeLink(w, r)
}

// allowMachines gives the allowlists their view of machines.
type allowMachines struct {
	*enroll.Service
	db *store.DB
}

func (m allowMachines) EachMachine(ctx context.Context, fn func(muster.Machine) error) error {
	return m.db.EachMachine(ctx, fn)
}

// allowRanges looks AS and countries up in the databases that there are.
type allowRanges struct{ n *node }

func (r allowRanges) ASPrefixes(numbers []uint32) (map[uint32][]netip.Prefix, error) {
	if r.n.asn == nil {
		return nil, muster.Errorf(muster.Invalid, "the server cannot tell the ranges of an AS: give it a database of AS numbers (setting enrich.asn)")
	}
	return r.n.asn.Prefixes(numbers)
}

func (r allowRanges) CountryPrefixes(codes []string) (map[string][]netip.Prefix, error) {
	if r.n.countries == nil {
		return nil, muster.Errorf(muster.Invalid, "the server cannot tell the ranges of a country: give it a database of countries (setting enrich.country)")
	}
	return r.n.countries.Prefixes(codes)
}

// rangesReloaded has the allowlists follow another database.
func (n *node) rangesReloaded() error {
	if err := n.allow.RangesChanged(); err != nil {
		return fmt.Errorf("looking up the AS and countries on allowlists: %w", err)
	}
	return nil
}

// hostResolver looks names up as this host does. It does not learn for how long
// answers hold.
type hostResolver struct{ *net.Resolver }

func (r hostResolver) Resolve(ctx context.Context, name string) ([]netip.Addr, time.Duration, error) {
	addrs, err := r.LookupNetIP(ctx, "ip", name+".") // the dot keeps search domains out
	return addrs, 0, err
}

// parseClouds reads the setting allowlists.clouds: name=path or name=URL.
func parseClouds(list []string) (map[string]string, error) {
	clouds := map[string]string{}
	for _, text := range list {
		name, source, ok := strings.Cut(text, "=")
		item, err := muster.ParseAllowItem("cloud:" + name)
		set, part := item.Cloud()
		switch {
		case !ok || source == "" || err != nil || part != "" || set != name:
			return nil, fmt.Errorf("expected name=path or name=https://…, the name in lower case, like aws=/var/lib/muster/ip-ranges.json, got %q", hidePasswords(text))
		case clouds[name] != "":
			return nil, fmt.Errorf("%s is there twice", name)
		}
		if isURL(source) {
			u, err := parseHTTP(source)
			if err != nil {
				return nil, err
			}
			if u.User != nil {
				return nil, fmt.Errorf("%s: expected a URL without user and password", name)
			}
		}
		clouds[name] = source
	}
	return clouds, nil
}

func isURL(source string) bool { return strings.Contains(source, "://") }

const (
	maxRangeFile  = 32 << 20
	rangesTimeout = time.Minute
)

// rangeFetcher reads the files that providers publish their ranges in.
type rangeFetcher struct{ client *http.Client }

// newRangeFetcher returns a fetcher that connects to private and reserved
// addresses only when it may. The address is looked at when it is connected to,
// so that neither a name that leads elsewhere nor a redirect gets around it.
func newRangeFetcher(private bool) rangeFetcher {
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	if !private {
		dialer.Control = func(_, address string, _ syscall.RawConn) error {
			ap, err := netip.ParseAddrPort(address)
			if err != nil {
				return err
			}
			if muster.SourceFromAddr(ap.Addr()).IsReserved() {
				return fmt.Errorf("%s is a private or reserved address (setting allowlists.private_urls)", ap.Addr())
			}
			return nil
		}
	}
	return rangeFetcher{&http.Client{Timeout: rangesTimeout, Transport: &http.Transport{
		DialContext: dialer.DialContext, TLSHandshakeTimeout: 10 * time.Second, MaxResponseHeaderBytes: 64 << 10,
		DisableKeepAlives: true, ForceAttemptHTTP2: true,
	}, CheckRedirect: func(r *http.Request, via []*http.Request) error {
		if len(via) > 3 || via[0].URL.Scheme == "https" && r.URL.Scheme != "https" {
			return errors.New("it redirects too often, or away from https")
		}
		return nil
	}}}
}

// Fetch reads a path or a URL.
func (f rangeFetcher) Fetch(ctx context.Context, source string) ([]byte, error) {
	if !isURL(source) {
		file, err := os.Open(source)
		if err != nil {
			return nil, err
		}
		defer func() { _ = file.Close() }()
		return readRanges(file)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, source, nil)
	if err != nil {
		return nil, err
	}
	resp, err := f.client.Do(req)
	if err != nil {
		if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
			err = wrapped.Err // without the URL, which may have a key in it
		}
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("expected status 200, got %s", resp.Status)
	}
	return readRanges(resp.Body)
}

func readRanges(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxRangeFile+1))
	if err == nil && len(data) > maxRangeFile {
		err = fmt.Errorf("it is larger than %d bytes", maxRangeFile)
	}
	return data, err
}
