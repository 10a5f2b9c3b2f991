# Connects the coding tools of this machine to SITE_NAME (SITE_URL).
#
#   irm SITE_URL/setup.ps1 | iex                                        finds tools, asks for the token, shows the changes, asks
#   & ([scriptblock]::Create((irm SITE_URL/setup.ps1))) --dry-run       only shows them
#   & ([scriptblock]::Create((irm SITE_URL/setup.ps1))) --undo          takes everything back, byte for byte
$ErrorActionPreference = 'Stop'
$program = @'
THE_PROGRAM
'@
$python = $null
foreach ($each in @('py', 'python3', 'python')) {
  if (Get-Command $each -ErrorAction SilentlyContinue) {
    & $each -c 'import sys; sys.exit(sys.version_info < (3, 8))' 2>$null
    if ($LASTEXITCODE -eq 0) { $python = $each; break }
  }
}
if (-not $python) { throw 'Python 3.8 or newer is needed to change settings safely. By hand: SITE_URL/docs/tools' }
$file = Join-Path ([IO.Path]::GetTempPath()) ("relay-setup-" + [guid]::NewGuid() + ".py")
try {
  [IO.File]::WriteAllText($file, $program, (New-Object Text.UTF8Encoding $false))
  & $python $file @args
} finally {
  Remove-Item -Force -ErrorAction SilentlyContinue $file
}
