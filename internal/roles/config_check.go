package roles

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// validate checks what a single value's type, range and words do not, and calls
// fail with the key of each setting that cannot be. It normalises public_url.
func validate(c *Config, fail func(path string, err error)) {
	check := func(path string, err error) {
		if err != nil {
			fail(path, err)
		}
	}
	if c.DataDir == "" {
		fail("data_dir", errors.New("expected a directory, got nothing"))
	}
	check("listen", checkListen(c.Listen))
	if c.Metrics.Listen != "" {
		if err := checkListen(c.Metrics.Listen); err != nil {
			fail("metrics.listen", err)
		} else if c.Metrics.Listen == c.Listen && !strings.HasSuffix(c.Listen, ":0") {
			fail("metrics.listen", fmt.Errorf("is the same address as listen, %s: expected another port, or \"\" for no metrics", c.Listen))
		}
	}
	if _, err := c.Proxies.trust(); err != nil {
		fail("proxies.trusted", err)
	} else if len(c.Proxies.Trusted) == 0 && c.Proxies.Protocol != "off" {
		fail("proxies.protocol", fmt.Errorf("is %s: expected the balancers that speak it in proxies.trusted, or off", c.Proxies.Protocol))
	}
	if c.PublicURL != "" {
		normal, err := normalURL(c.PublicURL)
		check("public_url", err)
		c.PublicURL = normal
	}
	if path, ok := strings.CutPrefix(c.Database, "sqlite:"); c.Database != "" && (!ok || path == "") {
		fail("database", fmt.Errorf("expected sqlite:<path>, the only database of this release, got %q", hidePasswords(c.Database)))
	}
	if c.Bus != "" {
		fail("bus", fmt.Errorf("expected \"\" for the embedded stream, the only one of this release, got %q", hidePasswords(c.Bus)))
	}
	if c.Traces.Endpoint != "" {
		_, err := parseHTTP(c.Traces.Endpoint)
		check("traces.endpoint", err)
	}
	if c.Limits.InFlight < c.Limits.Decoded {
		fail("limits.inflight", fmt.Errorf("is %s: expected at least limits.decoded, %s, or no such body could ever be taken",
			c.Limits.InFlight, c.Limits.Decoded))
	}
	_, err := parseClouds(c.Allowlists.Clouds)
	check("allowlists.clouds", err)
	if c.Retention.Alerts%(24*time.Hour) != 0 {
		fail("retention.alerts", fmt.Errorf("expected whole days, like 30d, got %s", FormatDuration(c.Retention.Alerts)))
	}
}

func checkListen(address string) error {
	_, port, err := net.SplitHostPort(address)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return fmt.Errorf("expected an address and a port, like 127.0.0.1:8600 or [::]:8600, got %q", address)
	}
	return nil
}

func parseHTTP(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return nil, fmt.Errorf("expected a URL like https://example.org/, got %q", hidePasswords(text))
	}
	return u, nil
}

func normalURL(text string) (string, error) {
	u, err := parseHTTP(text)
	if err != nil {
		return "", err
	}
	if u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return "", fmt.Errorf("expected a URL without user, ? and #, got %q", hidePasswords(text))
	}
	if !strings.HasSuffix(u.Path, "/") {
		u.Path += "/"
	}
	return u.String(), nil
}

// DatabaseURL returns where the database is, with the default filled in.
func (c *Config) DatabaseURL() string {
	if c.Database != "" {
		return c.Database
	}
	return "sqlite:" + filepath.Join(c.DataDir, "muster.db")
}

// BaseURL returns the URL under which engines reach this server, with a slash at
// its end: public_url, or http:// and address, where address is what the server
// listens on (c.Listen, or what became of its port 0).
func (c *Config) BaseURL(address string) string {
	if c.PublicURL != "" {
		return c.PublicURL
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "http://" + address + "/"
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1" // every address: this one is certain to reach it from here
	}
	return "http://" + net.JoinHostPort(host, port) + "/"
}
