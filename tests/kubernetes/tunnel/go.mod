module sluice.test/tunnel

go 1.26.0
