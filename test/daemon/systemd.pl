# Listens like systemd: prints every datagram that arrives at the socket named in the first argument.
use strict;
use warnings;
use IO::Socket::UNIX;
use Socket;
$| = 1;
my $server = IO::Socket::UNIX->new(Type => SOCK_DGRAM, Local => $ARGV[0]) or die "cannot listen: $!";
print "listening\n";
while (defined $server->recv(my $message, 4096)) {
  $message =~ s/\n+/ /g;
  print "$message\n";
}
