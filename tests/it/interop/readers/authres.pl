# For each file named on standard input: the domains of dkim=pass that SpamAssassin's parser of Authentication-Results believes, one line each.
use strict;
use warnings;
use Mail::SpamAssassin;

my $config = "util_rb_tld test\nloadplugin Mail::SpamAssassin::Plugin::Check\nloadplugin Mail::SpamAssassin::Plugin::AuthRes\nauthres_networks all\nauthres_trusted_authserv gate.relay.test\n";
my $reader = Mail::SpamAssassin->new({ config_text => $config, dont_copy_prefs => 1, local_tests_only => 1, userprefs_filename => '/dev/null' });
while (my $path = <STDIN>) {
    chomp $path;
    open(my $file, '<', $path) or die "$path: $!";
    my $mail = $reader->parse([<$file>], 1);
    my $status = $reader->check($mail);
    my @passed = grep { $_->{result} eq 'pass' } @{ $status->{authres_parsed}->{dkim} || [] };
    print join(' ', map { $_->{properties}->{header}->{d} // '-' } @passed), "\n";
    $status->finish();
    $mail->finish();
}
