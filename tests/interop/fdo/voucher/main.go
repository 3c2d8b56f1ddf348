// A verifier of ownership vouchers, and one who passes them on.
//
//	voucher FILE                  verifies all that needs no device; says why it does not hold
//	voucher FILE KEY NEXT_OWNER   writes the voucher with one more entry to standard output
//
// All files are PEM: KEY is PKCS#8, NEXT_OWNER one public key, or certificates.
package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"

	"github.com/fido-device-onboard/go-fdo"
	"github.com/fido-device-onboard/go-fdo/cbor"
)

const label = "OWNERSHIP VOUCHER"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(files []string) error {
	if len(files) != 1 && len(files) != 3 {
		return errors.New("give FILE, or FILE KEY NEXT_OWNER")
	}
	voucher, err := read(files[0])
	if err != nil {
		return err
	}
	if err := verify(voucher); err != nil || len(files) == 1 {
		return err
	}
	extended, err := extend(voucher, files[1], files[2])
	if err != nil {
		return err
	}
	encoded, err := cbor.Marshal(extended)
	if err != nil {
		return err
	}
	return pem.Encode(os.Stdout, &pem.Block{Type: label, Bytes: encoded})
}

func read(file string) (*fdo.Voucher, error) {
	found, err := blocks(file)
	if err != nil {
		return nil, err
	}
	if found[0].Type != label {
		return nil, errors.New("no voucher")
	}
	var voucher fdo.Voucher
	return &voucher, cbor.Unmarshal(found[0].Bytes, &voucher)
}

func verify(voucher *fdo.Voucher) error {
	return errors.Join(voucher.VerifyEntries(), voucher.VerifyCertChainHash(), voucher.VerifyDeviceCertChain(nil))
}

func extend(voucher *fdo.Voucher, keyFile, nextFile string) (*fdo.Voucher, error) {
	found, err := blocks(keyFile)
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(found[0].Bytes)
	if err != nil {
		return nil, err
	}
	next, err := blocks(nextFile)
	if err != nil {
		return nil, err
	}
	if next[0].Type == "CERTIFICATE" {
		var chain []*x509.Certificate
		for _, block := range next {
			certificate, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, err
			}
			chain = append(chain, certificate)
		}
		return fdo.ExtendVoucher(voucher, key.(crypto.Signer), chain, nil)
	}
	public, err := x509.ParsePKIXPublicKey(next[0].Bytes)
	if err != nil {
		return nil, err
	}
	extra := map[int][]byte{7: []byte("said by the supply chain")}
	switch public := public.(type) {
	case *ecdsa.PublicKey:
		return fdo.ExtendVoucher(voucher, key.(crypto.Signer), public, extra)
	case *rsa.PublicKey:
		return fdo.ExtendVoucher(voucher, key.(crypto.Signer), public, extra)
	}
	return nil, errors.New("a key of another kind")
}

func blocks(file string) ([]*pem.Block, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var found []*pem.Block
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		found = append(found, block)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%s is not PEM", file)
	}
	return found, nil
}
