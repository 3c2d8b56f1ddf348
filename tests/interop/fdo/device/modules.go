package main

import (
	"context"
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/fido-device-onboard/go-fdo/cbor"
)

// certificateModule is the device's side of fdo.csr: one enrollment of a new P-256 key.
type certificateModule struct {
	key            crypto.Signer
	serial         string
	begun          bool
	name           string // of the answer that comes in
	answer         []byte
	certificate    string // DER in base64, as the next
	caCertificates []string
}

func newCertificateModule(serial string) (*certificateModule, error) {
	key, err := generateEC(elliptic.P256())
	return &certificateModule{key: key, serial: serial}, err
}

// Transition has nothing to do: what is asked for first is asked in Yield.
func (c *certificateModule) Transition(bool) error { return nil }

// Receive only collects: what comes in pieces is whole when Yield is called.
func (c *certificateModule) Receive(
	_ context.Context, name string, body io.Reader, _ func(string) io.Writer, _ func(),
) error {
	piece, err := io.ReadAll(body)
	if name != c.name {
		c.name, c.answer = name, nil
	}
	c.answer = append(c.answer, piece...)
	return err
}

// Yield asks the next question.
func (c *certificateModule) Yield(_ context.Context, respond func(string) io.Writer, _ func()) error {
	ask := func(name string, value any) error { return cbor.NewEncoder(respond(name)).Encode(value) }
	name := c.name
	c.name = ""
	switch name {
	case "":
		if c.begun {
			return nil
		}
		c.begun = true
		return ask("cacerts-req", 281)
	case "cacerts-res":
		certificates, err := certificatesOf(c.answer)
		if err != nil {
			return err
		}
		for _, each := range certificates {
			c.caCertificates = append(c.caCertificates, base64.StdEncoding.EncodeToString(each.Raw))
		}
		return ask("csrattrs-req", 0)
	case "csrattrs-res":
		request, err := c.request()
		if err != nil {
			return err
		}
		return ask("simpleenroll-req", request)
	case "simpleenroll-res":
		var text string
		err := cbor.Unmarshal(c.answer, &text)
		c.certificate = strings.Join(strings.Fields(text), "")
		return errors.Join(err, ask("active", false))
	}
	return fmt.Errorf("the owner says %s: %x", name, c.answer)
}

// check sees to it that there is a certificate, for the right key.
func (c *certificateModule) check() error {
	der, err := base64.StdEncoding.DecodeString(c.certificate)
	if err != nil {
		return err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	if !c.key.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(certificate.PublicKey) {
		return errors.New("the certificate is for another key")
	}
	return nil
}

func (c *certificateModule) request() (string, error) {
	clientAuth := []asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 2}}
	purposes, err := asn1.Marshal(clientAuth)
	if err != nil {
		return "", err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject:         pkix.Name{CommonName: "Go device", SerialNumber: c.serial},
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Value: purposes}},
	}, c.key)
	return base64.StdEncoding.EncodeToString(der), err
}

// certificatesOf reads a certs-only CMS message: RFC 8551, 3.8.
func certificatesOf(answer []byte) ([]*x509.Certificate, error) {
	var text string
	if err := cbor.Unmarshal(answer, &text); err != nil {
		return nil, err
	}
	der, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		return nil, err
	}
	var message struct {
		Type    asn1.ObjectIdentifier
		Content struct {
			Version          int
			DigestAlgorithms asn1.RawValue
			Content          asn1.RawValue
			Certificates     asn1.RawValue `asn1:"tag:0"`
			SignerInfos      asn1.RawValue `asn1:"set"`
		} `asn1:"explicit,tag:0"`
	}
	if _, err := asn1.Unmarshal(der, &message); err != nil {
		return nil, err
	}
	return x509.ParseCertificates(message.Content.Certificates.Bytes)
}
