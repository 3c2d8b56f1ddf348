package main

import "net/http"

// counter counts messages and their bytes, without the heads of HTTP, on connections of its own.
type counter struct {
	http.Transport
	messages, sent, received int64
}

func (c *counter) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := c.Transport.RoundTrip(request)
	if err == nil {
		c.messages++
		c.sent += request.ContentLength
		c.received += response.ContentLength
	}
	return response, err
}
