"""What a sync costs, measured from an installed wheel beside a floor and a peer: `make bench`."""
