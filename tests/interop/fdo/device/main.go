// Device is a device of FIDO Device Onboard on the go-fdo library: it gets a credential from a manufacturer, and then
// finds its owner as often as it is told, each time with a certificate by fdo.csr. A peer for the tests of scanseal.
//
// It prints one line of JSON for each onboarding: wall time and CPU time in seconds, messages and their bytes, certificates.
package main

import (
	"bufio"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"syscall"
	"time"

	"github.com/fido-device-onboard/go-fdo"
	"github.com/fido-device-onboard/go-fdo/cbor"
	"github.com/fido-device-onboard/go-fdo/cose"
	"github.com/fido-device-onboard/go-fdo/custom"
	fdohttp "github.com/fido-device-onboard/go-fdo/http"
	"github.com/fido-device-onboard/go-fdo/kex"
	"github.com/fido-device-onboard/go-fdo/protocol"
	"github.com/fido-device-onboard/go-fdo/serviceinfo"
)

type keyKind struct {
	number   protocol.KeyType
	generate func() (crypto.Signer, error)
}

var keyKinds = map[string]keyKind{
	"p-256":    {protocol.Secp256r1KeyType, func() (crypto.Signer, error) { return generateEC(elliptic.P256()) }},
	"p-384":    {protocol.Secp384r1KeyType, func() (crypto.Signer, error) { return generateEC(elliptic.P384()) }},
	"rsa-2048": {protocol.Rsa2048RestrKeyType, func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 2048) }},
	"rsa-3072": {protocol.RsaPkcsKeyType, func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 3072) }},
}

var keyEncodings = map[string]protocol.KeyEncoding{
	"X509": protocol.X509KeyEnc, "X5CHAIN": protocol.X5ChainKeyEnc, "COSEKEY": protocol.CoseKeyEnc,
}

var ciphers = map[string]kex.CipherSuiteID{
	"A128GCM": kex.A128GcmCipher, "A192GCM": kex.A192GcmCipher, "A256GCM": kex.A256GcmCipher,
	"AES128/CBC": kex.CoseAes128CbcCipher, "AES128/CTR": kex.CoseAes128CtrCipher,
	"AES256/CBC": kex.CoseAes256CbcCipher, "AES256/CTR": kex.CoseAes256CtrCipher,
}

type options struct {
	manufacturer string
	key          string
	keyFile      string
	encoding     string
	keyExchange  string
	cipher       string
	serial       string
	serviceInfo  uint
	reuse        bool
	times        int
	commanded    bool
}

func main() {
	var chosen options
	flag.StringVar(&chosen.manufacturer, "manufacturer", "", "address of the manufacturer's server")
	flag.StringVar(&chosen.key, "key", "p-256", "kind of the device key")
	flag.StringVar(&chosen.keyFile, "key-file", "", "where the device key is; made where it is not there")
	flag.StringVar(&chosen.encoding, "encoding", "X5CHAIN", "how keys of manufacturer and owners are written")
	flag.StringVar(&chosen.keyExchange, "key-exchange", "ECDH256", "suite of the key exchange")
	flag.StringVar(&chosen.cipher, "cipher", "A256GCM", "cipher suite")
	flag.StringVar(&chosen.serial, "serial", "GO-4711", "serial number")
	flag.UintVar(&chosen.serviceInfo, "service-info", 4096, "longest service info that is taken")
	flag.BoolVar(&chosen.reuse, "reuse", false, "allow the owner to leave the credential as it is")
	flag.IntVar(&chosen.times, "times", 1, "how often to onboard")
	flag.BoolVar(&chosen.commanded, "commanded", false, "onboard once for each line of standard input, instead of -times")
	flag.Parse()
	if err := run(context.Background(), chosen); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, chosen options) error {
	kind, known := keyKinds[chosen.key]
	if !known {
		return fmt.Errorf("no kind of key is called %q", chosen.key)
	}
	key, err := keyIn(chosen.keyFile, kind)
	if err != nil {
		return err
	}
	secret := make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		return err
	}
	device := &device{options: chosen, key: key, secret: secret}
	if err := device.initialize(ctx, kind.number); err != nil {
		return err
	}
	commands := bufio.NewScanner(os.Stdin)
	for done := 0; chosen.goesOn(done, commands); done++ {
		said, err := device.onboard(ctx)
		if err != nil {
			return err
		}
		if err := json.NewEncoder(os.Stdout).Encode(said); err != nil {
			return err
		}
	}
	return nil
}

// goesOn says whether to onboard once more; where that is commanded it waits for the command.
func (o *options) goesOn(done int, commands *bufio.Scanner) bool {
	if o.commanded {
		return commands.Scan()
	}
	return done < o.times
}

// keyIn is the key in a file, which is made where there is none.
func keyIn(path string, kind keyKind) (crypto.Signer, error) {
	if encoded, err := os.ReadFile(path); err == nil {
		key, err := x509.ParsePKCS8PrivateKey(encoded)
		if err != nil {
			return nil, err
		}
		return key.(crypto.Signer), nil
	}
	key, err := kind.generate()
	if err != nil || path == "" {
		return key, err
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, os.WriteFile(path, encoded, 0o600)
}

type device struct {
	options
	key        crypto.Signer
	secret     []byte
	credential fdo.DeviceCredential
}

// onboarding is what is printed of TO2; TO1 is not measured.
type onboarding struct {
	GUID           string   `json:"guid"`
	Reused         bool     `json:"reused"`
	Seconds        float64  `json:"seconds"`
	CPUSeconds     float64  `json:"cpu_seconds"`
	Messages       int64    `json:"messages"`
	Sent           int64    `json:"sent"`
	Received       int64    `json:"received"`
	Certificate    string   `json:"certificate"`
	CACertificates []string `json:"ca_certificates"`
}

// initialize runs DI.
func (d *device) initialize(ctx context.Context, kind protocol.KeyType) error {
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: d.serial}}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, d.key)
	if err != nil {
		return err
	}
	request, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return err
	}
	encoding, known := keyEncodings[d.encoding]
	if !known {
		return fmt.Errorf("no encoding of keys is called %q", d.encoding)
	}
	credential, err := fdo.DI(ctx, &fdohttp.Transport{BaseURL: d.manufacturer}, custom.DeviceMfgInfo{
		KeyType:      kind,
		KeyEncoding:  encoding,
		SerialNumber: d.serial,
		DeviceInfo:   "Go device",
		CertInfo:     cbor.X509CertificateRequest(*request),
	}, fdo.DIConfig{
		HmacSha256: hmac.New(sha256.New, d.secret), HmacSha384: hmac.New(sha512.New384, d.secret), Key: d.key,
	})
	if err == nil {
		d.credential = *credential
	}
	return err
}

// onboard follows the first directive that leads to an owner.
func (d *device) onboard(ctx context.Context) (*onboarding, error) {
	failure := errors.New("no directive names a server")
	for _, directive := range protocol.ParseDeviceRvInfo(d.credential.RvInfo) {
		for _, url := range directive.URLs {
			address, redirect := url.String(), (*cose.Sign1[protocol.To1d, []byte])(nil)
			if !directive.Bypass {
				var err error
				transport := &fdohttp.Transport{BaseURL: address}
				if redirect, err = fdo.TO1(ctx, transport, d.credential, d.key, nil); err != nil {
					failure = err
					continue
				}
				address = ownerAddress(redirect.Payload.Val.RV[0])
			}
			return d.meet(ctx, address, redirect)
		}
	}
	return nil, failure
}

func ownerAddress(address protocol.RvTO2Addr) string {
	host, scheme := "", "http"
	switch {
	case address.IPAddress != nil:
		host = address.IPAddress.String()
	case address.DNSAddress != nil:
		host = *address.DNSAddress
	}
	if address.TransportProtocol == protocol.HTTPSTransport {
		scheme = "https"
	}
	return fmt.Sprintf("%s://%s:%d", scheme, host, address.Port)
}

// meet runs TO2.
func (d *device) meet(
	ctx context.Context, owner string, redirect *cose.Sign1[protocol.To1d, []byte],
) (*onboarding, error) {
	cipher, known := ciphers[d.cipher]
	if !known {
		return nil, fmt.Errorf("no cipher suite is called %q", d.cipher)
	}
	module, err := newCertificateModule(d.serial)
	if err != nil {
		return nil, err
	}
	counter := new(counter)
	defer counter.CloseIdleConnections()
	guid := d.credential.GUID
	beginCPU, begin := cpuTime(), time.Now()
	next, err := fdo.TO2(ctx, &fdohttp.Transport{BaseURL: owner, Client: &http.Client{Transport: counter}}, redirect, fdo.TO2Config{
		Cred:       d.credential,
		HmacSha256: hmac.New(sha256.New, d.secret),
		HmacSha384: hmac.New(sha512.New384, d.secret),
		Key:        d.key,
		Devmod: serviceinfo.Devmod{
			Os: "Linux", Arch: "amd64", Version: "1", Device: "Go device", FileSep: ";", Bin: "amd64",
		},
		DeviceModules:             map[string]serviceinfo.DeviceModule{"fdo.csr": module},
		KeyExchange:               kex.Suite(d.keyExchange),
		CipherSuite:               cipher,
		MaxServiceInfoSizeReceive: uint16(d.serviceInfo),
		AllowCredentialReuse:      d.reuse,
	})
	seconds, cpuSeconds := time.Since(begin).Seconds(), (cpuTime() - beginCPU).Seconds()
	if err != nil {
		return nil, err
	}
	if next != nil {
		d.credential = *next
	}
	return &onboarding{
		GUID: fmt.Sprintf("%x", guid[:]), Reused: next == nil, Seconds: seconds, CPUSeconds: cpuSeconds,
		Messages: counter.messages, Sent: counter.sent, Received: counter.received,
		Certificate: module.certificate, CACertificates: module.caCertificates,
	}, module.check()
}

// cpuTime is what this process has used, in all its threads.
func cpuTime() time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		log.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

func generateEC(curve elliptic.Curve) (crypto.Signer, error) {
	return ecdsa.GenerateKey(curve, rand.Reader)
}
