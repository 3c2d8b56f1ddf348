// Server is a manufacturer, a rendezvous server and an owner of FIDO Device Onboard in one process, on the go-fdo
// library: a peer for the tests of scanseal. It trusts everybody and listens on this machine only.
//
// The first line that it prints is {"port": N}; one more line follows for each message 255 that it gets.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/fido-device-onboard/go-fdo"
	"github.com/fido-device-onboard/go-fdo/custom"
	fdohttp "github.com/fido-device-onboard/go-fdo/http"
)

type options struct {
	directory    string
	owners       int
	bypass       bool
	reuse        bool
	serviceInfo  uint
	attributes   string
	refusal      uint
	otherModule  string
	rendezvous   string
	loseAnswerTo string
	lifetime     time.Duration
	shortKeys    bool
}

func main() {
	var chosen options
	flag.StringVar(&chosen.directory, "directory", ".", "where vouchers and CA certificates are written")
	flag.IntVar(&chosen.owners, "owners", 1, "how many owners there are; each onboards and passes the device on")
	flag.BoolVar(&chosen.bypass, "bypass", false, "say that the owner is to be asked without a rendezvous server")
	flag.BoolVar(&chosen.reuse, "reuse", false, "leave the credential as it is (credential reuse)")
	flag.UintVar(&chosen.serviceInfo, "service-info", 0, "longest service info that is taken; 0: as long as devices take it")
	flag.StringVar(&chosen.attributes, "attributes", "MAA=", "answer to csrattrs-req")
	flag.UintVar(&chosen.refusal, "refusal", 0, "error of fdo.csr that answers simpleenroll-req; 0: issue")
	flag.StringVar(&chosen.otherModule, "other-module", "", "one more module that the owner wants to use, first")
	flag.StringVar(&chosen.rendezvous, "rendezvous", "", "where owners register and devices ask, on this machine; default: here")
	flag.StringVar(&chosen.loseAnswerTo, "lose-answer-to", "", "message whose first answer is lost")
	flag.BoolVar(&chosen.shortKeys, "short-keys", false, "use keys on curves one of whose coordinates begins with a zero byte")
	flag.DurationVar(&chosen.lifetime, "lifetime", 10*time.Minute, "when it ends by itself")
	flag.Parse()
	if err := serve(chosen); err != nil {
		log.Fatal(err)
	}
}

func serve(chosen options) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	ca, err := newAuthority()
	if err != nil {
		return err
	}
	keys, err := newKeyRing(chosen.shortKeys)
	if err != nil {
		return err
	}
	if err := writeCertificates(filepath.Join(chosen.directory, "ca.pem"), ca.certificates()); err != nil {
		return err
	}
	if err := writeCertificates(filepath.Join(chosen.directory, "owners.pem"), keys.root()); err != nil {
		return err
	}
	time.AfterFunc(chosen.lifetime, func() { os.Exit(3) })
	port := uint16(listener.Addr().(*net.TCPAddr).Port)
	if chosen.rendezvous == "" {
		chosen.rendezvous = fmt.Sprintf("http://127.0.0.1:%d", port)
	}
	say(map[string]any{"port": port})
	handler := handlerOf(&parties{chosen, port, keys, newSessions(), newRegister(chosen.directory), ca})
	return http.Serve(listener, &losing{next: handler, message: chosen.loseAnswerTo})
}

// handlerOf puts the servers of the four protocols together.
func handlerOf(all *parties) http.Handler {
	handler := &fdohttp.Handler{
		Tokens: all.sessions,
		DIResponder: &fdo.DIServer[custom.DeviceMfgInfo]{
			Session:               all.sessions,
			Vouchers:              all.register,
			SignDeviceCertificate: custom.SignDeviceCertificate(all.ca.key, all.ca.certificates()),
			DeviceInfo:            all.manufacturerKey,
			BeforeVoucherPersist:  all.sell,
			AfterVoucherPersist:   all.announce,
			RvInfo:                all.rendezvousInfo,
		},
		TO0Responder: &fdo.TO0Server{Session: all.sessions, RVBlobs: all.register},
		TO1Responder: &fdo.TO1Server{Session: all.sessions, RVBlobs: all.register},
		TO2Responder: ownerServer{&fdo.TO2Server{
			Session:                  all.sessions,
			Modules:                  &moduleSequence{all},
			Vouchers:                 all,
			OwnerKeys:                all,
			RvInfo:                   all.nextRendezvousInfo,
			ReuseCredential:          all.reuses,
			VerifyVoucher:            all.verify,
			MaxDeviceServiceInfoSize: all.serviceInfoSize,
		}},
	}
	routes := http.NewServeMux()
	routes.Handle("POST /fdo/101/msg/{number}", handler)
	return routes
}

// losing handles each message, but loses the first answer to one of them, as a cut connection does.
type losing struct {
	next    http.Handler
	message string
	once    sync.Once
}

func (l *losing) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.next.ServeHTTP(w, r)
	if l.message != "" && filepath.Base(r.URL.Path) == l.message {
		l.once.Do(func() { panic(http.ErrAbortHandler) })
	}
}

func say(line map[string]any) {
	if err := json.NewEncoder(os.Stdout).Encode(line); err != nil {
		log.Fatal(err)
	}
}
