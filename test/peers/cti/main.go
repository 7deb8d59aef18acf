// Command cti asks about addresses with CrowdSec's own client, whose types refuse
// a whole answer for one field of another type. It prints what the client made of
// the answers, as JSON.
//
//	cti URL KEY smoke IP      one item, the empty one for an unknown address
//	cti URL KEY search IP…    {"total":…,"not_found":…,"items":[…]}
//	cti URL KEY fire LIMIT    all pages: [[…],[…]]
package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strconv"

	"github.com/crowdsecurity/crowdsec/pkg/cticlient"
)

// elsewhere sends what is meant for CrowdSec's server to another one.
type elsewhere struct{ url *url.URL }

func (e elsewhere) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.URL.Scheme, r.URL.Host, r.Host = e.url.Scheme, e.url.Host, ""
	return http.DefaultTransport.RoundTrip(r)
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 4 {
		return fmt.Errorf("usage: cti URL KEY smoke|search|fire ARGUMENT…")
	}
	server, err := url.Parse(args[0])
	if err != nil {
		return err
	}
	client := cticlient.NewCrowdsecCTIClient(cticlient.WithAPIKey(args[1]), cticlient.WithHTTPClient(&http.Client{Transport: elsewhere{server}}))
	var answer any
	switch args[2] {
	case "smoke":
		answer, err = client.GetIPInfo(args[3])
	case "search":
		answer, err = client.SearchIPs(args[3:])
	case "fire":
		answer, err = fire(client, args[3])
	default:
		err = fmt.Errorf("expected smoke, search or fire, got %q", args[2])
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(answer)
}

func fire(client *cticlient.CrowdsecCTIClient, text string) (pages [][]cticlient.FireItem, err error) {
	limit, err := strconv.Atoi(text)
	if err != nil {
		return nil, err
	}
	all := cticlient.NewFirePaginator(client, cticlient.FireParams{Limit: &limit})
	for {
		items, err := all.Next()
		if err != nil {
			return nil, err
		}
		if items == nil {
			return pages, nil
		}
		pages = append(pages, items)
	}
}
