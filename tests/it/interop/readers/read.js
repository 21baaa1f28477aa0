// For each file named on standard input: the addresses of From: as mailparser shows them, one JSON list a line.
const fs = require('fs');
const { simpleParser } = require('mailparser');

function addresses(entries) {
    return (entries || []).flatMap(entry => [entry.address, ...addresses(entry.group)]).filter(Boolean);
}

(async () => {
    for (const path of fs.readFileSync(0, 'utf8').split('\n').filter(Boolean)) {
        const mail = await simpleParser(fs.readFileSync(path));
        const fields = [].concat(mail.from || []);
        console.log(JSON.stringify(fields.flatMap(field => addresses(field.value))));
    }
})();
