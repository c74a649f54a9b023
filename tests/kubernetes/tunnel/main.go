// Command tunnel carries connections of an API server into a cluster that it has no way to, as konnectivity does.
//
//	tunnel server SOCKET ADDRESS   serves CONNECT at a Unix socket, over connections that agents have made to ADDRESS
//	tunnel agent ADDRESS           makes such connections, and leads them to whom the server names
//
// A connection carries one other: the server sends the place in a line, the agent answers with a line that says why it did not
// get there, or nothing. From then on bytes pass.
package main

import (
	"bufio"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// How many connections an agent keeps in store.
const store = 8

func main() {
	switch {
	case len(os.Args) == 4 && os.Args[1] == "server":
		log.Fatal(serve(os.Args[2], os.Args[3]))
	case len(os.Args) == 3 && os.Args[1] == "agent":
		for range store - 1 {
			go agent(os.Args[2])
		}
		agent(os.Args[2])
	default:
		log.Fatal("tunnel server SOCKET ADDRESS, or tunnel agent ADDRESS")
	}
}

// ---- the server

func serve(socket, address string) error {
	agents, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	idle := make(chan net.Conn)
	go func() {
		for {
			if agent, err := agents.Accept(); err == nil {
				go func() { idle <- agent }()
			}
		}
	}()
	os.Remove(socket)
	clients, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	return http.Serve(clients, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			http.Error(w, "CONNECT only", http.StatusMethodNotAllowed)
			return
		}
		agent, said, err := connect(idle, r.Host)
		log.Printf("%s: %v", r.Host, err)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		client, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			agent.Close()
			return
		}
		fmt.Fprint(client, "HTTP/1.1 200 Connection established\r\n\r\n")
		splice(client, client, agent, said)
	}))
}

// connect has an agent connect to a place.
func connect(idle <-chan net.Conn, place string) (net.Conn, io.Reader, error) {
	for {
		select {
		case agent := <-idle:
			said := bufio.NewReader(agent)
			fmt.Fprintln(agent, place)
			failure, err := said.ReadString('\n')
			if err != nil { // it has gone in the meantime
				agent.Close()
				continue
			}
			if failure = strings.TrimSpace(failure); failure != "" {
				agent.Close()
				return nil, nil, fmt.Errorf("the agent: %s", failure)
			}
			return agent, said, nil
		case <-time.After(5 * time.Second):
			return nil, nil, fmt.Errorf("no agent is there")
		}
	}
}

// ---- the agent

func agent(address string) {
	for {
		if err := await(address); err != nil {
			log.Print(err)
			time.Sleep(200 * time.Millisecond)
		}
	}
}

// await connects to the server, and leads the connection to whom it names; returns once it has been named.
func await(address string) error {
	server, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		return err
	}
	said := bufio.NewReader(server)
	place, err := said.ReadString('\n')
	if err != nil {
		server.Close()
		return err
	}
	go func() {
		other, err := net.DialTimeout("tcp", strings.TrimSpace(place), 5*time.Second)
		if err != nil {
			fmt.Fprintln(server, err)
			server.Close()
			return
		}
		fmt.Fprintln(server)
		splice(server, said, other, other)
	}()
	return nil
}

// splice passes bytes both ways until either side has ended.
func splice(a net.Conn, fromA io.Reader, b net.Conn, fromB io.Reader) {
	defer a.Close()
	defer b.Close()
	ended := make(chan struct{}, 2)
	pass := func(to net.Conn, from io.Reader) {
		io.Copy(to, from)
		ended <- struct{}{}
	}
	go pass(b, fromA)
	go pass(a, fromB)
	<-ended
}
