# Saves the modules that a requirements.psd1 names, in the form of PSDepend: MANIFEST LAYER.
param([string] $Manifest, [string] $Layer)

$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'

function Stop-Install([string] $Message) {
    [Console]::Error.WriteLine($Message)
    exit 1
}

try {
    # Data only: nothing in it is run. The file must have this ending.
    $copy = '/tmp/requirements.psd1'
    Copy-Item -LiteralPath $Manifest -Destination $copy
    $wanted = Import-PowerShellDataFile -LiteralPath $copy
} catch {
    Stop-Install "requirements.psd1 cannot be read: $($_.Exception.Message)"
}
$repositories = @{}

# The name of a repository: one that is registered, or one that is registered now for its address.
function Get-Repository([string] $Repository) {
    if ($Repository -notmatch '^(https?://|/usr/share/)') {
        return $Repository
    }
    if (-not $repositories.ContainsKey($Repository)) {
        $name = "requirements$($repositories.Count)"
        Register-PSResourceRepository -Name $name -Uri $Repository -Trusted
        $repositories[$Repository] = $name
    }
    $repositories[$Repository]
}

if (-not (Get-Command Save-PSResource -ErrorAction Ignore)) {
    Stop-Install 'modules are installed by Microsoft.PowerShell.PSResourceGet, which PowerShell has since 7.4: install it'
}
$options = $wanted['PSDependOptions']
foreach ($entry in $wanted.GetEnumerator() | Where-Object Key -NE 'PSDependOptions' | Sort-Object Key) {
    $name, $version, $repository = $entry.Key, $entry.Value, $null
    if ($version -is [hashtable]) {
        $type = $version['DependencyType']
        if ($type -and $type -notin 'PSGalleryModule', 'PSGalleryNuget', 'PSResource') {
            Stop-Install "$($entry.Key): only modules of repositories can be installed, and no $type"
        }
        $repository = $version['Parameters']?['Repository'] ?? $version['Repository']
        $name, $version = ($version['Name'] ?? $name), $version['Version']
    }
    $repository ??= ${options}?['Parameters']?['Repository']
    $save = @{ Name = $name; Path = $Layer; TrustRepository = $true; IncludeXml = $false }
    if ($version -and $version -ne 'latest') {
        $save.Version = "$version"
    }
    if ($repository) {
        $save.Repository = Get-Repository $repository
    }
    try {
        Save-PSResource @save
    } catch {
        Stop-Install "$($entry.Key): $($_.Exception.Message)"
    }
    Write-Host "$name $version"
}
exit 0
