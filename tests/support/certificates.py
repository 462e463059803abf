"""A throw-away authority and what it signs, by openssl."""
import subprocess


class Authority:
    def __init__(self, folder, name="authority"):
        self.folder, self.name = folder, name
        self.file = folder / f"{name}.pem"
        self.openssl("req", "-x509", *self.new_key(name), "-days", "2", "-subj", f"/CN={name}", "-out", str(self.file))

    def openssl(self, *arguments, before=()):
        subprocess.run([*before, "openssl", *arguments], cwd=self.folder, check=True, capture_output=True)

    @staticmethod
    def new_key(name):
        return "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", f"{name}.key"

    def sign(self, name, names="DNS:localhost,IP:127.0.0.1", at=None):
        """Certificate and key of `name`, for two days from `at` (as faketime understands it)."""
        extensions, certificate = self.folder / f"{name}.ext", self.folder / f"{name}.pem"
        extensions.write_text(f"subjectAltName={names}\n")
        self.openssl("req", *self.new_key(name), "-subj", f"/CN={name}", "-out", f"{name}.csr")
        self.openssl("x509", "-req", "-in", f"{name}.csr", "-CA", str(self.file), "-CAkey", f"{self.name}.key",
                     "-CAcreateserial", "-days", "2", "-extfile", str(extensions), "-out", str(certificate),
                     before=("faketime", at) if at else ())
        return str(certificate), str(self.folder / f"{name}.key")
