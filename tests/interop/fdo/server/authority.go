package main

import (
	"bytes"
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"os"
	"time"
)

// authority is a CA with a root and one CA below it, for this process only.
type authority struct {
	key         crypto.Signer
	certificate *x509.Certificate
	above       *x509.Certificate
}

func newAuthority() (*authority, error) {
	rootKey, err := generateEC(elliptic.P256())
	if err != nil {
		return nil, err
	}
	root, err := newCertificate(authorityTemplate("Go test root"), nil, rootKey.Public(), rootKey)
	if err != nil {
		return nil, err
	}
	key, err := generateEC(elliptic.P256())
	if err != nil {
		return nil, err
	}
	certificate, err := newCertificate(authorityTemplate("Go test CA"), root, key.Public(), rootKey)
	return &authority{key, certificate, root}, err
}

// certificates are those of the CA, the root last.
func (a *authority) certificates() []*x509.Certificate {
	return []*x509.Certificate{a.certificate, a.above}
}

// certify gives a key of the manufacturer or of an owner its certificate.
func (a *authority) certify(public crypto.PublicKey, name string) (*x509.Certificate, error) {
	template := &x509.Certificate{Subject: pkix.Name{CommonName: name}, KeyUsage: x509.KeyUsageDigitalSignature}
	return newCertificate(template, a.certificate, public, a.key)
}

// issue gives a device what it asks for: subject and extensions are those of the request.
func (a *authority) issue(der []byte) (*x509.Certificate, error) {
	request, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, err
	}
	if err := request.CheckSignature(); err != nil {
		return nil, err
	}
	template := &x509.Certificate{RawSubject: request.RawSubject, ExtraExtensions: request.Extensions}
	return newCertificate(template, a.certificate, request.PublicKey, a.key)
}

func authorityTemplate(name string) *x509.Certificate {
	return &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		BasicConstraintsValid: true,
		IsCA:                  true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
}

func newCertificate(
	template, issuer *x509.Certificate, public crypto.PublicKey, key crypto.Signer,
) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial.Add(serial, big.NewInt(1))
	template.NotBefore = time.Now().Add(-time.Hour)
	template.NotAfter = time.Now().AddDate(1, 0, 0)
	if issuer == nil {
		issuer = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, public, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// certsOnly is a CMS message that holds certificates and signs nothing: RFC 8551, 3.8.
func certsOnly(certificates []*x509.Certificate) ([]byte, error) {
	type content struct{ Type asn1.ObjectIdentifier }
	data, signed := asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}, asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	var all bytes.Buffer
	for _, each := range certificates {
		all.Write(each.Raw)
	}
	inner, err := asn1.Marshal(struct {
		Version          int
		DigestAlgorithms []pkix.AlgorithmIdentifier `asn1:"set"`
		Content          content
		Certificates     asn1.RawValue
		SignerInfos      []asn1.RawValue `asn1:"set"`
	}{1, nil, content{data}, wrapped(all.Bytes()), nil})
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(struct {
		Type    asn1.ObjectIdentifier
		Content asn1.RawValue
	}{signed, wrapped(inner)})
}

// wrapped is [0] of DER around something.
func wrapped(der []byte) asn1.RawValue {
	return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: der}
}

func writeCertificates(path string, certificates []*x509.Certificate) error {
	var text bytes.Buffer
	for _, each := range certificates {
		if err := pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: each.Raw}); err != nil {
			return err
		}
	}
	return os.WriteFile(path, text.Bytes(), 0o600)
}
